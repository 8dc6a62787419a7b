package dag

import (
	"runtime"
	"sync"
)

// inOrder calls work for 0 to n-1 on all cores and hands the results to use in
// that order, on the caller's goroutine. Few results wait for use at a time. The
// first error of use ends it; all goroutines have ended when it returns.
func inOrder[T any](n int, work func(int) T, use func(T) error) error {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers < 2 {
		for i := range n {
			if err := use(work(i)); err != nil {
				return err
			}
		}
		return nil
	}
	type job struct {
		i   int
		out chan<- T
	}
	jobs := make(chan job)
	results := make(chan (<-chan T), workers) // in order
	stop := make(chan struct{})
	var running sync.WaitGroup
	defer running.Wait()
	defer close(stop)
	for range workers {
		running.Go(func() {
			for j := range jobs {
				j.out <- work(j.i)
			}
		})
	}
	running.Go(func() {
		defer close(jobs)
		defer close(results)
		for i := range n {
			out := make(chan T, 1) // nobody waits for a result that nobody uses
			select {
			case results <- out:
			case <-stop:
				return
			}
			select {
			case jobs <- job{i, out}:
			case <-stop:
				return
			}
		}
	})
	for out := range results {
		if err := use(<-out); err != nil {
			return err
		}
	}
	return nil
}
