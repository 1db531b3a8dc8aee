package run

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more tests run at the same time than there are processors: they wait for leases to end most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
