package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// patience is how long a silent command may run before a line says that it is still at work.
const patience = 20 * time.Second

// goEnv is the environment of every go command here. The user's GOFLAGS may ask for what changes the result; VCS stamping
// fails in a checkout that belongs to another user, and nobody reads the stamp.
func goEnv() []string {
	return append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off")
}

// command prepares a process that is asked to end, with its children, when ctx ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = goEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// quietly runs cmd with a line at the start, one now and then, and one at the end. Its output is part of the error only.
func quietly(ctx context.Context, what string, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	done := stillRunning(what, start)
	err := cmd.Run()
	done()
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	if err != nil {
		say("%-44s FAILED after %s", what, since(start))
		return fmt.Errorf("%s: %w\n%s", what, err, strings.TrimSpace(out.String()))
	}
	say("%-44s ok, %s", what, since(start))
	return nil
}

// output runs a command and returns what it printed; what it complained of is part of the error.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := command(ctx, name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// stillRunning says now and then that what goes on, until the function that it returns is called.
func stillRunning(what string, start time.Time) (stop func()) {
	tick, end := time.NewTicker(patience), make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				say("%-44s %s so far", what, since(start))
			}
		}
	}()
	return func() {
		tick.Stop()
		close(end)
		<-gone
	}
}

// say prints one line.
func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

func since(start time.Time) time.Duration { return round(time.Since(start)) }

// round keeps the digits that somebody would read.
func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
