package dag_test

import (
	"context"
	"fmt"
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

func save(ctx context.Context, sink dag.Sink, documents map[string]string) (cid.Cid, error) {
	var tree dag.Editor
	for path, text := range documents {
		link, _, err := dag.WriteDocument(ctx, sink, strings.NewReader(text))
		if err != nil {
			return cid.Undef, err
		}
		if err := tree.Put(path, link); err != nil {
			return cid.Undef, err
		}
	}
	root, err := tree.Apply(ctx, nil, sink, cid.Undef)
	return root.CID, err
}

// The CID of a state follows from its documents alone: any UnixFS implementation
// set to the same CID profile computes it from the same files.
func ExampleEditor() {
	root, err := save(context.Background(), dag.Discard, map[string]string{
		"policy.json":           `{"name":"example"}`,
		"vc_document/0001.json": `{"credential":1}`,
		"vc_document/0002.json": `{"credential":2}`,
	})
	fmt.Println(root, err)
	// Output: bafybeigjf6gzzeuolhn2lqhc5y24ct3alz33unsdqec7a5lkzsthmejrqq <nil>
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
