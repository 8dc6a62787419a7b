package dag

import (
	"iter"
	"runtime"
	"sync"
)

// pipeline calls work for every item on all cores and hands the results to use in
// the order of the items, on the caller's goroutine; items is run on another. Few
// items and results wait at a time. The first error of use ends it; all goroutines
// have ended when it returns.
func pipeline[I, T any](items iter.Seq[I], work func(I) T, use func(T) error) error {
	workers := runtime.GOMAXPROCS(0)
	type job struct {
		item I
		out  chan<- T
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
				j.out <- work(j.item)
			}
		})
	}
	running.Go(func() {
		defer close(jobs)
		defer close(results)
		for item := range items {
			out := make(chan T, 1) // nobody waits for a result that nobody uses
			select {
			case results <- out:
			case <-stop:
				return
			}
			select {
			case jobs <- job{item, out}:
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

// inOrder is pipeline for 0 to n-1.
func inOrder[T any](n int, work func(int) T, use func(T) error) error {
	numbers := func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
	if n > 1 && runtime.GOMAXPROCS(0) > 1 {
		return pipeline(numbers, work, use)
	}
	for i := range numbers {
		if err := use(work(i)); err != nil {
			return err
		}
	}
	return nil
}
