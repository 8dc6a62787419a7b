package dag_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// store is the smallest store of IPFS blocks.
type store map[cid.Cid][]byte

func (s store) Put(_ context.Context, blocks ...dag.Block) error {
	for _, b := range blocks {
		s[b.CID] = b.Data
	}
	return nil
}

func (s store) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	data, ok := s[c]
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, dag.ErrNotFound)
	}
	return data, dag.Block{CID: c, Data: data}.Check()
}

// save builds the state of the documents.
func save(ctx context.Context, sink dag.Sink, documents map[string]string) (cid.Cid, error) {
	state := dag.NewBuilder(sink)
	for _, path := range slices.Sorted(maps.Keys(documents)) {
		link, _, err := dag.WriteDocument(ctx, sink, strings.NewReader(documents[path]))
		if err != nil {
			return cid.Undef, err
		}
		if err := state.Add(ctx, path, link); err != nil {
			return cid.Undef, err
		}
	}
	root, err := state.Finish(ctx)
	return root.CID, err
}

// The CID of a state follows from its documents alone: any UnixFS implementation
// set to the same CID profile computes it from the same files.
func ExampleBuilder() {
	root, err := save(context.Background(), dag.Discard, map[string]string{
		"policy.json":           `{"name":"example"}`,
		"vc_document/0001.json": `{"credential":1}`,
		"vc_document/0002.json": `{"credential":2}`,
	})
	fmt.Println(root, err)
	// Output: bafybeigjf6gzzeuolhn2lqhc5y24ct3alz33unsdqec7a5lkzsthmejrqq <nil>
}

// Changes to a state cost what they touch, and end in the CID that a build from
// nothing has.
func ExampleEditor() {
	ctx, blocks := context.Background(), store{}
	root, err := save(ctx, blocks, map[string]string{
		"policy.json":           `{"name":"example"}`,
		"vc_document/0001.json": `{"credential":1}`,
		"vp_document/0001.json": `{"presentation":1}`,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	link, _, err := dag.WriteDocument(ctx, blocks, strings.NewReader(`{"credential":2}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	var edit dag.Editor
	fmt.Println(edit.Put("vc_document/0002.json", link), edit.Delete("vp_document/0001.json"))
	next, err := edit.Apply(ctx, blocks, blocks, root)
	fmt.Println(next.CID, err)
	for change, err := range dag.Diff(ctx, blocks, root, next.CID) {
		fmt.Println(change.Path, change.Before != nil, change.After != nil, err)
	}
	// Output:
	// <nil> <nil>
	// bafybeigjf6gzzeuolhn2lqhc5y24ct3alz33unsdqec7a5lkzsthmejrqq <nil>
	// vc_document/0002.json false true <nil>
	// vp_document/0001.json true false <nil>
}

// A proof is a small CAR. Whoever knows the CID of a state, or of a save point,
// checks it without a disk, a network or trust in its sender.
func ExampleVerifyProof() {
	ctx, blocks := context.Background(), store{}
	root, err := save(ctx, blocks, map[string]string{
		"vc_document/0001.json": `{"credential":1}`,
		"vc_document/0002.json": `{"credential":2}`,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var present, absent bytes.Buffer
	if err := errors.Join(
		dag.WriteProof(ctx, &present, blocks, root, "vc_document/0002.json"),
		dag.WriteProof(ctx, &absent, blocks, root, "vc_document/0003.json"),
	); err != nil {
		fmt.Println(err)
		return
	}
	var document strings.Builder
	doc, err := dag.VerifyProof(ctx, &present, root, "vc_document/0002.json", &document)
	fmt.Println(doc.Bytes, document.String(), err)
	_, err = dag.VerifyProof(ctx, &absent, root, "vc_document/0003.json", nil)
	fmt.Println(errors.Is(err, dag.ErrNoDocument))
	// Output:
	// 16 {"credential":2} <nil>
	// true
}

// What somebody lacks who has an earlier state.
func ExampleWritePartialCAR() {
	ctx, blocks := context.Background(), store{}
	documents := map[string]string{"a.json": "1", "b.json": "2"}
	before, err := save(ctx, blocks, documents)
	if err != nil {
		fmt.Println(err)
		return
	}
	documents["b.json"] = "3"
	after, err := save(ctx, blocks, documents)
	if err != nil {
		fmt.Println(err)
		return
	}
	var car bytes.Buffer
	if err := dag.WritePartialCAR(ctx, &car, blocks, []cid.Cid{before}, after); err != nil {
		fmt.Println(err)
		return
	}
	in, err := dag.ReadCAR(&car)
	if err != nil {
		fmt.Println(err)
		return
	}
	for b, err := in.Next(); err == nil; b, err = in.Next() {
		fmt.Println(b.CID == after, len(b.Data))
	}
	// Output:
	// true 104
	// false 1
}

func ExampleDocuments() {
	ctx, blocks := context.Background(), store{}
	root, err := save(ctx, blocks, map[string]string{
		"policy.json":           `{"name":"example"}`,
		"vc_document/0002.json": `{"credential":2}`,
		"vc_document/0001.json": `{"credential":1}`,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for doc, err := range dag.Documents(ctx, blocks, root) {
		if err != nil {
			fmt.Println(err)
			return
		}
		text, err := dag.ReadDocument(ctx, blocks, root, doc.Path)
		fmt.Println(doc.Path, doc.Bytes, string(text), err)
	}
	// Output:
	// policy.json 18 {"name":"example"} <nil>
	// vc_document/0001.json 16 {"credential":1} <nil>
	// vc_document/0002.json 16 {"credential":2} <nil>
}
