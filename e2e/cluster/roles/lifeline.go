package main

import (
	"io"
	"os"
)

// watchLifeline ends this process at the end of its standard input when it was started by the test bed: its parent holds
// the other end of that pipe, and the kernel closes it however the parent ends.
func watchLifeline() {
	if os.Getenv("TESTBED_LIFELINE") != "stdin" {
		return
	}
	_ = os.Unsetenv("TESTBED_LIFELINE") // children of this process have a standard input of their own
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // an error also means that nobody is there any more
		os.Exit(1)
	}()
}
