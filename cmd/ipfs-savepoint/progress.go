package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/term"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// progress shows how far something is: on a terminal a line that is written over,
// elsewhere a line every two seconds.
type progress struct {
	e     *env
	start time.Time
	last  time.Time
	shown bool
}

func (e *env) progress() *progress { return &progress{e: e, start: time.Now(), last: time.Now()} }

func (p *progress) update(format string, args ...any) {
	if p.e.quiet || p.e.noProgress {
		return
	}
	pause := 2 * time.Second
	if p.e.terminal {
		pause = 100 * time.Millisecond
	}
	now := time.Now()
	if now.Sub(p.last) < pause {
		return
	}
	p.last, p.shown = now, true
	line := fmt.Sprintf(format, args...) + fmt.Sprintf(", %.0f s", now.Sub(p.start).Seconds())
	if p.e.terminal {
		fmt.Fprintf(p.e.err, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(p.e.err, line)
	}
}

// atMost says what there is to do at most, and how long that takes at most if it goes
// on as until now; nothing if total is not known. What is there already is not known.
func (p *progress) atMost(done, total uint64) string {
	if total <= done || done == 0 {
		return ""
	}
	left := time.Since(p.start).Seconds() / float64(done) * float64(total-done)
	return fmt.Sprintf(" of at most %s, %.0f s left", size(total), left)
}

// done leaves the terminal's line empty.
func (p *progress) done() {
	if p.shown && p.e.terminal {
		fmt.Fprint(p.e.err, "\r\x1b[K")
	}
}

// size writes a number of bytes for a person.
func size(n uint64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 10_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
