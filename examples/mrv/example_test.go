package mrv_test

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
)

// A run is saved when a yearly report is submitted. The process ends, and the
// documents of the last save alone carry the run to its end.
func ExampleRunner() {
	ctx := context.Background()
	policy, err := mrv.ParsePolicy(mrv.Bundled())
	if err != nil {
		log.Fatal(err)
	}
	r, err := mrv.New(policy, mrv.Script(1, 3))
	if err != nil {
		log.Fatal(err)
	}
	var saved []mrv.Document
	r.SetHooks(mrv.Hooks{Save: func(_ context.Context, s mrv.SavePoint) error {
		saved = slices.Collect(s.Documents)
		fmt.Println("saved height", s.Height, s.Blocks)
		return nil
	}})
	if err := r.Run(ctx, 70); err != nil {
		log.Fatal(err)
	}

	restored, err := mrv.Load(policy, func(yield func(mrv.Document, error) bool) {
		for _, d := range saved {
			if !yield(d, nil) {
				return
			}
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("restored at height", restored.Height())
	if err := restored.Run(ctx, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println("done at height", restored.Height(), restored.Done())
	// Output:
	// saved height 6 [registered]
	// saved height 32 [report_submitted]
	// saved height 59 [report_submitted]
	// restored at height 59
	// done at height 87 true
}
