package wire

import (
	"fmt"
	"os"

	"github.com/slipway-cd/slipway/manifests/render"
)

// Child is called first in main. It returns at once, unless this process was
// started by itself to render: then it does that and exits.
func Child() {
	if len(os.Args) != 2 || os.Args[1] != RenderChild {
		return
	}
	if err := render.Child(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
