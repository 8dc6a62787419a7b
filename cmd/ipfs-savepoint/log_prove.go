package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// proofJSON is the result of "log prove".
type proofJSON struct {
	Savepoint string `json:"savepoint"`
	LogIndex  int64  `json:"logIndex"`
	Path      string `json:"path,omitempty"`
	File      string `json:"file,omitempty"`
	Bytes     int64  `json:"bytes,omitempty"`
	Proof     string `json:"proof,omitempty"` // file of --raw
	Entry     string `json:"entry,omitempty"`
}

func (e *env) logProveCommand() *cobra.Command {
	var trust, origin, file, raw string
	cmd := &cobra.Command{
		Use:   "prove REF [PATH] -o FILE.car",
		Short: "Write a proof of a save point, and of one document in it",
		Long: `Write a proof of a save point, and of the document at PATH in it or of its absence.

FILE.car has only the nodes on PATH and the proof that the save point is in the log.
Whoever has it and the trust policy checks it with "log verify-proof", without this
repository and without a network. Of a document that was erased the proof says all but
its bytes. --raw DIR writes the log's part for other people's
tools: N.tlog-proof (C2SP tlog-proof) and N.entry, the bytes of entry N. Existing files
are not overwritten.`,
		Args: rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && raw == "" {
				return usagef("-o FILE.car or --raw DIR is missing")
			}
			path := ""
			if len(args) > 1 {
				path = args[1]
			}
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				out := proofJSON{Savepoint: s.CID.String(), LogIndex: s.LogIndex, Path: path}
				if file != "" {
					n, err := e.writeNew(file, 0o666, func(w io.Writer) error { return b.Prove(cmd.Context(), s, path, w) })
					if err != nil {
						return err
					}
					out.File, out.Bytes = e.path(file), n
				}
				if raw != "" {
					if err := e.writeRaw(cmd, b, s, raw, &out); err != nil {
						return err
					}
				}
				return e.result(out, "%s\n", s.CID)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the `FILE.car` to write, which must not be there")
	cmd.Flags().StringVar(&raw, "raw", "", "the folder `DIR` to write N.tlog-proof and N.entry to")
	refFlags(cmd, &trust, &origin)
	return cmd
}

func (e *env) writeRaw(cmd *cobra.Command, b *savepoints.Bank, s savepoints.Savepoint, dir string, out *proofJSON) error {
	proof, record, err := b.RawProof(cmd.Context(), s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.path(dir), 0o777); err != nil {
		return err
	}
	base := filepath.Join(e.path(dir), fmt.Sprint(s.LogIndex))
	out.Proof, out.Entry = base+".tlog-proof", base+".entry"
	if err := e.checkNew(out.Entry); err != nil {
		return err
	}
	if err := e.writeNewBytes(out.Proof, 0o666, proof); err != nil {
		return err
	}
	if err := e.writeNewBytes(out.Entry, 0o666, record); err != nil {
		return errors.Join(err, os.Remove(out.Proof)) // neither without the other
	}
	return nil
}

// provenJSON is the result of "log verify-proof".
type provenJSON struct {
	Origin     string `json:"origin"`
	LogIndex   int64  `json:"logIndex"`
	Size       int64  `json:"size"`
	RootHash   string `json:"rootHash"`
	Savepoint  string `json:"savepoint"`
	Sequence   uint64 `json:"sequence"`
	Time       string `json:"time"`
	Policy     string `json:"policy,omitempty"` // from the manifest, if the proof has it
	State      string `json:"state,omitempty"`
	Path       string `json:"path,omitempty"`
	Document   string `json:"document,omitempty"` // CID
	Bytes      uint64 `json:"bytes,omitempty"`
	Absent     bool   `json:"absent,omitempty"`
	Erased     bool   `json:"erased,omitempty"`   // the document's bytes are gone on purpose
	ErasedBy   *int64 `json:"erasedBy,omitempty"` // the log entry that says so
	Cosigned   int    `json:"cosigned"`           // witnesses of the policy that cosigned the head
	CosignedAt string `json:"cosignedAt,omitempty"`
}

func (e *env) logVerifyProofCommand() *cobra.Command {
	var trust, to string
	cmd := &cobra.Command{
		Use:   "verify-proof FILE [PATH] --trust FILE",
		Short: "Check a proof with nothing but the trust policy",
		Long: `Check a proof from "log prove", an archive, or a C2SP tlog-proof whose extra line is the
entry, with nothing but the trust policy: no repository, no network. It prints what
is proven; with PATH what is at that path of the state, or that nothing is, which
holds if the state is canonical. FILE may be of any length: all of it is checked, and some 250
bytes of memory are needed for each IPFS block. Evidence that a repository kept of a log that forked
is checked too; what it noted of an old head that was shown proves nothing by itself.`,
		Args: rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if trust == "" {
				return fmt.Errorf("%w: --trust FILE says whose log to believe", savepoints.ErrNoTrust)
			}
			text, err := e.readTrust(trust)
			if err != nil {
				return err
			}
			p, err := anchor.ParsePolicy(text)
			if err != nil {
				return fmt.Errorf("trust policy %s: %w", trust, err)
			}
			path := ""
			if len(args) > 1 {
				path = args[1]
			}
			evidence, err := e.readEvidence(args[0])
			if err != nil {
				return err
			}
			if evidence != nil {
				return e.verifyEvidence(p, evidence)
			}
			got, err := e.verifyProof(cmd.Context(), p, args[0], path, to)
			if err != nil {
				return err
			}
			return e.printProven(p, path, got)
		},
	}
	trustFlag(cmd, &trust)
	cmd.Flags().StringVar(&to, "to", "", "write the bytes of the proven document to `FILE`, which must not be there")
	return cmd
}

// verifyProof checks a file, and writes the document that it proves to another one, if that
// has a name.
func (e *env) verifyProof(ctx context.Context, p *anchor.Policy, file, path, to string) (got savepoints.Proven, err error) {
	f, err := e.openFile("proof", file)
	if err != nil {
		return got, err
	}
	defer f.Close()
	verify := func(w io.Writer) error {
		if got, err = savepoints.VerifyProofFile(ctx, p, f, path, w); err != nil {
			err = fmt.Errorf("%s: %w", file, err)
		}
		return err
	}
	if to == "" {
		err = verify(nil)
		return got, err
	}
	_, err = e.writeNew(to, 0o666, func(w io.Writer) error {
		err := verify(w)
		if err == nil && (path == "" || got.Absent || got.Erased) {
			err = usagef("--to: there is no document to write")
		}
		return err
	})
	return got, err
}

// readEvidence returns the evidence that a file is, nil if it is something else.
func (e *env) readEvidence(file string) ([]byte, error) {
	f, err := e.openFile("proof", file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, anchor.MaxEvidenceSize+1))
	if err != nil || !bytes.HasPrefix(data, []byte("{")) {
		return nil, err
	}
	return data, nil
}

func (e *env) printProven(p *anchor.Policy, path string, got savepoints.Proven) error {
	out := provenJSON{
		Origin: got.Origin, LogIndex: got.LogIndex, Size: got.Head.Size,
		RootHash:  base64.StdEncoding.EncodeToString(got.Head.RootHash[:]),
		Savepoint: got.CID.String(), Sequence: got.Entry.Sequence, Time: got.Entry.Time.Format(time.RFC3339Nano), Path: path,
	}
	var oldest time.Time
	for _, at := range anchor.CosignedAt(p, got.Head) {
		if out.Cosigned++; oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	if out.Cosigned > 0 {
		out.CosignedAt = oldest.UTC().Format(time.RFC3339)
	}
	text := fmt.Sprintf("proven      save point %s\nlog         %s, entry %d of %d, %d witnesses\ntime        %s (as the log says)\n",
		out.Savepoint, out.Origin, out.LogIndex, out.Size, out.Cosigned, out.Time)
	if m := got.Manifest; m != nil {
		out.Policy, out.State = m.Policy.ID, m.State.String()
		text += fmt.Sprintf("policy      %s@%d\nstate       %s\n", out.Policy, out.Sequence, out.State)
	}
	switch {
	case got.Absent:
		out.Absent = true
		text += fmt.Sprintf("document    there is none at %q, given that the state is canonical\n", path)
	case path != "":
		out.Document, out.Bytes = got.Document.Link.CID.String(), got.Document.Bytes
		text += fmt.Sprintf("document    %q: %s, %s\n", path, out.Document, size(out.Bytes))
	}
	if got.Erased {
		out.Erased, out.ErasedBy = true, &got.ErasedBy
		text += fmt.Sprintf("erased      its bytes are gone, as log entry %d says\n", got.ErasedBy)
	}
	return e.result(out, "%s", text)
}

// verifyEvidence checks what a repository kept against a log.
func (e *env) verifyEvidence(p *anchor.Policy, data []byte) error {
	got, err := anchor.CheckEvidence(p, data)
	if err != nil {
		return err
	}
	hash := func(h anchor.Head) string { return base64.StdEncoding.EncodeToString(h.RootHash[:]) }
	out := map[string]any{
		"kind": got.Kind, "origin": p.Origin, "proves": got.Proves(),
		"old": map[string]any{"size": got.Old.Size, "rootHash": hash(got.Old)},
		"new": map[string]any{"size": got.New.Size, "rootHash": hash(got.New)},
	}
	what := "proven      fork"
	switch got.Kind {
	case anchor.EvidenceEntries:
		what = fmt.Sprintf("proven      two entries at index %d", got.Index)
		out["index"] = got.Index
	case anchor.EvidenceObservation:
		what = "not proven  old head"
		out["source"], out["time"] = got.Source, got.Time.Format(time.RFC3339)
	}
	text := fmt.Sprintf("%s of log %s: its key signed size %d with root %s, and size %d with root %s\n",
		what, p.Origin, got.Old.Size, hash(got.Old), got.New.Size, hash(got.New))
	if !got.Proves() {
		text += fmt.Sprintf("observed    whoever wrote this says that %q showed the smaller one at %s, after the larger one was known; an honest log has both\n",
			got.Source, got.Time.Format(time.RFC3339))
	}
	return e.result(out, "%s", text)
}
