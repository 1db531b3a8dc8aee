package local_test

import (
	"os"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/cmd/internal/wire/local"
)

func TestTestBed(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts a cluster with a node")
	}
	dir, err := os.MkdirTemp("", "bed") // short: sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := local.StartTestBed(t.Context(), dir, t.Output()); err == nil || !strings.Contains(err.Error(), "is not here") {
		t.Errorf("outside of a checkout: %v", err)
	}
	t.Chdir("../../../..")
	bed, err := local.StartTestBed(t.Context(), dir, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bed.Stop(); err != nil {
			t.Error(err)
		}
	}()
	config, err := wire.KubeConfig(bed.Kubeconfig, "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(bed.Registry, "127.0.0.1:") || !strings.HasPrefix(config.Host, "https://") {
		t.Errorf("%+v, %s", bed, config.Host)
	}
}
