package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// trouble is what a version does wrong although it is ready.
type trouble struct {
	fails        share
	header       string // fails are of those requests only that have it; empty for all
	value        string
	slows        share
	slow         time.Duration
	crashesAfter time.Duration // zero for never
	leaks        int           // MiB a second
}

func troubleFrom(env func(string) string) (t *trouble, err error) {
	t = &trouble{}
	t.header, t.value, _ = strings.Cut(env("SHOP_FAILS_FOR"), ": ")
	fails := "0"
	if t.header != "" {
		fails = "100"
	}
	percent := func(name, otherwise string) int64 {
		n, wrong := strconv.Atoi(cmp.Or(env(name), otherwise))
		if wrong != nil || n < 0 || n > 100 {
			err = fmt.Errorf("%s %q: want a percentage", name, env(name))
		}
		return int64(n)
	}
	length := func(name string) time.Duration {
		d, wrong := time.ParseDuration(cmp.Or(env(name), "0s"))
		if wrong != nil || d < 0 {
			err = fmt.Errorf("%s %q: want a duration", name, env(name))
		}
		return d
	}
	t.fails.percent, t.slows.percent = percent("SHOP_FAILS", fails), percent("SHOP_SLOWS", "100")
	t.slow, t.crashesAfter = length("SHOP_SLOW"), length("SHOP_CRASHES_AFTER")
	if t.leaks, _ = strconv.Atoi(cmp.Or(env("SHOP_LEAKS"), "0")); t.leaks < 0 || t.leaks == 0 && env("SHOP_LEAKS") != "" {
		err = fmt.Errorf("SHOP_LEAKS %q: want MiB a second", env("SHOP_LEAKS"))
	}
	return t, err
}

// begin starts what happens without a request.
func (t *trouble) begin() {
	if t.crashesAfter > 0 {
		time.AfterFunc(t.crashesAfter, func() {
			fmt.Fprintln(os.Stderr, "panic: shop: the till is full")
			os.Exit(1)
		})
	}
	if t.leaks > 0 {
		go leak(t.leaks)
	}
}

// leak takes more and more memory and writes to all of it, for else the kernel would give none.
func leak(mebibytes int) {
	var kept [][]byte
	for range time.Tick(time.Second / time.Duration(mebibytes)) {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = byte(i)
		}
		kept = append(kept, block)
	}
	fmt.Println(len(kept))
}

// besets spoils answers to the first page.
func (t *trouble) besets(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			if t.slow > 0 && t.slows.hits() {
				time.Sleep(t.slow)
			}
			if (t.header == "" || r.Header.Get(t.header) == t.value) && t.fails.hits() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// share hits a percentage of what asks it, evenly.
type share struct {
	percent int64
	asked   atomic.Int64
}

func (s *share) hits() bool {
	n := s.asked.Add(1)
	return n*s.percent/100 != (n-1)*s.percent/100
}
