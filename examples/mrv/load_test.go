package mrv_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
)

// edit changes the first document below a prefix; a nil result drops it.
func edit(t testing.TB, docs []mrv.Document, prefix string, change func([]byte) []byte) []mrv.Document {
	t.Helper()
	i := slices.IndexFunc(docs, func(d mrv.Document) bool { return strings.HasPrefix(d.Path, prefix) })
	if i < 0 {
		t.Fatalf("no document %s", prefix)
	}
	docs = slices.Clone(docs)
	b := change(bytes.Clone(docs[i].Bytes))
	if b == nil {
		return slices.Delete(docs, i, i+1)
	}
	if bytes.Equal(b, docs[i].Bytes) {
		t.Fatalf("nothing changed in %s", docs[i].Path)
	}
	docs[i].Bytes = b
	return docs
}

func swap(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
}

func drop([]byte) []byte { return nil }

func TestStatesThatAreRefused(t *testing.T) {
	r := bundledRun(t, 1, 2)
	runTo(t, r, 40) // in the second year, with a queue of everything
	good := documents(r)
	more := func(path, content string) []mrv.Document {
		return append(slices.Clone(good), mrv.Document{Path: path, Bytes: []byte(content)})
	}
	for name, c := range map[string]struct {
		docs []mrv.Document
		want error
		path string
	}{
		"nothing":                {nil, mrv.ErrMissingDocument, "policy_state/run.json"},
		"no run record":          {edit(t, good, "policy_state/", drop), mrv.ErrMissingDocument, "policy_state/run.json"},
		"other policy hash":      {edit(t, good, "policy_state/", swap(`"policyHash":"`, `"policyHash":"0`)), mrv.ErrPolicyMismatch, "policy_state/run.json"},
		"other policy id":        {edit(t, good, "policy_state/", swap(`"policyId":"6`, `"policyId":"7`)), mrv.ErrPolicyMismatch, "policy_state/run.json"},
		"unknown field":          {edit(t, good, "policy_state/", swap(`"height"`, `"hight"`)), mrv.ErrMalformedState, "policy_state/run.json"},
		"queue position":         {edit(t, good, "policy_state/", swap(`"nextInput":`, `"nextInput":1`)), mrv.ErrMalformedState, "policy_state/run.json"},
		"lost credential":        {edit(t, good, "vc_document/", drop), mrv.ErrMissingDocument, "vc_document"},
		"lost input":             {edit(t, good, "inputs/", drop), mrv.ErrMissingDocument, "inputs"},
		"lost timer":             {edit(t, good, "timers/", drop), mrv.ErrMissingDocument, "timers"},
		"lost residue":           {edit(t, good, "split_documents/", drop), mrv.ErrMissingDocument, "split_documents"},
		"lost queue entry":       {edit(t, good, "aggregate_vc/", drop), mrv.ErrMissingDocument, "aggregate_vc"},
		"a document more":        {more("vc_document/extra.json", "{}"), mrv.ErrUnexpectedDocument, "vc_document"},
		"a document twice":       {append(slices.Clone(good), good[0]), mrv.ErrUnexpectedDocument, good[0].Path},
		"a second run record":    {more("policy_state/other.json", "{}"), mrv.ErrUnexpectedDocument, "policy_state"},
		"unknown collection":     {more("secrets/key.json", "{}"), mrv.ErrMalformedState, "secrets/key.json"},
		"path that climbs":       {more("inputs/../../x.json", "{}"), mrv.ErrMalformedState, "inputs/../../x.json"},
		"no JSON name":           {more("inputs/000001.txt", "{}"), mrv.ErrMalformedState, "inputs/000001.txt"},
		"cut document":           {edit(t, good, "vc_document/", func(b []byte) []byte { return b[:len(b)/2] }), mrv.ErrMalformedState, "vc_document/"},
		"changed claim":          {edit(t, good, "vc_document/", swap(`"credentialSubject":[{`, `"credentialSubject":[{"a":1,`)), mrv.ErrHashMismatch, "vc_document/"},
		"no subject":             {edit(t, good, "vc_document/", emptySubject), mrv.ErrMalformedState, "vc_document/"},
		"changed presentation":   {edit(t, good, "vp_document/", swap(`"verifiableCredential":[`, `"verifiableCredential":[{},`)), mrv.ErrHashMismatch, "vp_document/"},
		"row of another policy":  {edit(t, good, "mint_request/", swap(`"policyId":"6`, `"policyId":"7`)), mrv.ErrPolicyMismatch, "mint_request/"},
		"row under another path": {edit(t, good, "mint_request/", swap(`"id":"`, `"id":"0`)), mrv.ErrMalformedState, "mint_request/"},
		"mint without its proof": {edit(t, good, "mint_request/", swap(`"vpId":"`, `"vpId":"0`)), mrv.ErrMissingDocument, "mint_request/"},
		"queue names no one":     {edit(t, good, "block_state/yearly_total", swap(`"queue":["`, `"queue":["0`)), mrv.ErrMissingDocument, "block_state/yearly_total.json"},
		"state of an unknown tag": {rename(edit(t, good, "block_state/monitoring.json", swap(`"blockTag":"monitoring"`, `"blockTag":"nowhere"`)),
			"block_state/monitoring.json", "block_state/nowhere.json"), mrv.ErrUnknownTag, "block_state/nowhere.json"},
		"state of another id":   {edit(t, good, "block_state/monitoring.json", swap(`"blockId":"`, `"blockId":"0`)), mrv.ErrUnknownTag, "block_state/monitoring.json"},
		"state of a wrong form": {edit(t, good, "block_state/monitoring.json", swap(`"index"`, `"queue"`)), mrv.ErrMalformedState, "block_state/monitoring.json"},
		"no such child":         {edit(t, good, "block_state/monitoring.json", swap(`"index":0`, `"index":9`)), mrv.ErrMalformedState, "block_state/monitoring.json"},
		"timer of another block": {rename(edit(t, good, "timers/", swap(`0011","blockTag":"open_period"`, `0012","blockTag":"monitoring"`)),
			"timers/open_period.json", "timers/monitoring.json"), mrv.ErrUnknownTag, "timers/monitoring.json"},
		"input for no block": {edit(t, good, "inputs/", swap(`"block":"monitoring_form"`, `"block":"nowhere"`)), mrv.ErrUnknownTag, "inputs/"},
		"input out of place": {edit(t, good, "inputs/", swap(`"index":`, `"index":9`)), mrv.ErrUnexpectedDocument, "inputs/"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mrv.Load(parse(t, string(mrv.Bundled())), sequence(c.docs))
			var refused *mrv.StateError
			if !errors.As(err, &refused) || !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if !strings.HasPrefix(refused.Path, c.path) {
				t.Errorf("%s is blamed, want %s: %v", refused.Path, c.path, err)
			}
		})
	}
}

func rename(docs []mrv.Document, from, to string) []mrv.Document {
	for i := range docs {
		if docs[i].Path == from {
			docs[i].Path = to
		}
	}
	return docs
}

func emptySubject(b []byte) []byte {
	i := bytes.Index(b, []byte(`"credentialSubject":[`))
	return append(b[:i], `"credentialSubject":[]}}`...)
}

func TestLoadUnderAChangedPolicy(t *testing.T) {
	r := bundledRun(t, 1, 1)
	runTo(t, r, 10)
	changed := parse(t, replaced(t, `"gridGramsPerKwh": 540`, `"gridGramsPerKwh": 541`))
	if _, err := mrv.Load(changed, sequence(documents(r))); !errors.Is(err, mrv.ErrPolicyMismatch) {
		t.Errorf("got %v", err)
	}
}

func TestLoadPassesOnASourceError(t *testing.T) {
	lost := errors.New("block not found")
	_, err := mrv.Load(parse(t, string(mrv.Bundled())), func(yield func(mrv.Document, error) bool) { yield(mrv.Document{}, lost) })
	if !errors.Is(err, lost) {
		t.Errorf("got %v", err)
	}
}

func TestLoadKeepsItsOwnCopy(t *testing.T) {
	r := bundledRun(t, 1, 1)
	runTo(t, r, 10)
	docs := documents(r)
	restored := load(t, parse(t, string(mrv.Bundled())), docs)
	for _, d := range docs {
		clear(d.Bytes)
	}
	wantSame(t, documents(restored), documents(r))
}

func TestLoadFS(t *testing.T) {
	r := bundledRun(t, 1, 1)
	runTo(t, r, 20)
	folder := fstest.MapFS{}
	for d := range r.Documents() {
		folder[d.Path] = &fstest.MapFile{Data: d.Bytes}
	}
	p := parse(t, string(mrv.Bundled()))
	restored, err := mrv.LoadFS(p, folder)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, documents(restored), documents(r))
	runTo(t, r, 0)
	runTo(t, restored, 0)
	wantSame(t, documents(restored), documents(r))

	folder["notes.txt"] = &fstest.MapFile{Data: []byte("hello")}
	var refused *mrv.StateError
	if _, err := mrv.LoadFS(p, folder); !errors.As(err, &refused) || refused.Path != "notes.txt" {
		t.Errorf("a stray file: %v", err)
	}
}
