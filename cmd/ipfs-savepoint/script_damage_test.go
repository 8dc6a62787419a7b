package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdFlip changes one bit of a file: of the byte at an offset, or of the first
// byte of a text in it.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	if err != nil {
		at = bytes.Index(data, []byte(args[1]))
	} else if at < 0 {
		at += len(data)
	}
	if at < 0 || at >= len(data) {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	data[at] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// sections returns the offsets at which the sections of a CARv1 begin, the header
// first, and its end.
func sections(ts *testscript.TestScript, car []byte) []int {
	var offsets []int
	at := 0
	for at < len(car) {
		offsets = append(offsets, at)
		n, k := binary.Uvarint(car[at:])
		if k <= 0 {
			ts.Fatalf("no section at offset %d", at)
		}
		at += k + int(n)
	}
	return append(offsets, at)
}

// offsetsToTry are offsets of a CAR that hit each kind of byte: lengths, CIDs and
// data of the first and last sections, and random ones.
func offsetsToTry(ts *testscript.TestScript, car []byte, number int) []int {
	var out []int
	starts := sections(ts, car)
	for _, i := range []int{0, 1, len(starts) / 2, len(starts) - 2} {
		for _, d := range []int{0, 1, 3, 20, 45} { // length, CID, digest, data
			out = append(out, min(starts[i]+d, len(car)-1))
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same offsets in each run
	for len(out) < number {
		out = append(out, random.IntN(len(car)))
	}
	return out
}

// cmdDamagePacks flips bits of a repository's store, one at a time. Each must be
// found by verify, unless it hits what no save point and no head holds any more:
// directories of the log's earlier heads. Put right again, everything must be there.
func cmdDamagePacks(ts *testscript.TestScript, _ bool, args []string) {
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	repo := ts.MkAbs(args[0])
	packs, err := filepath.Glob(filepath.Join(repo, "packs", "*.car"))
	ts.Check(err)
	pack := packs[0]
	good, err := os.ReadFile(pack)
	ts.Check(err)
	held := heldBytes(ts, repo, good)
	random := rand.New(rand.NewPCG(3, 4))
	failed := 0
	for _, at := range offsetsToTry(ts, good, number) {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << random.IntN(8)
		ts.Check(os.WriteFile(pack, bad, 0o600))
		status, words := quietly(ts, "verify", "--all", "--repo", repo)
		if status != exitVerification && (status != 0 || held[at]) {
			ts.Logf("bit flipped at offset %d: exit status %d\n%s", at, status, words)
			failed++
		}
	}
	ts.Check(os.WriteFile(pack, good, 0o600))
	if failed > 0 {
		ts.Fatalf("%d of the flipped bits were not found as they should be", failed)
	}
}

// heldBytes says of each byte of a pack whether it belongs to a section of what the
// repository holds: the save points and the newest head of the log.
func heldBytes(ts *testscript.TestScript, repo string, pack []byte) []bool {
	ctx := context.Background()
	b, err := savepoints.Open(ctx, repo)
	ts.Check(err)
	defer b.Close()
	list, err := b.List(ctx, "")
	ts.Check(err)
	head, err := b.Head(ctx, "")
	ts.Check(err)
	queue := []cid.Cid{head.Root}
	for _, s := range list {
		queue = append(queue, s.CID)
	}
	held := map[cid.Cid]bool{}
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		if held[c] {
			continue
		}
		held[c] = true
		data, err := b.Repo().Blocks.Get(ctx, c)
		ts.Check(err)
		links, err := dag.Links(dag.Block{CID: c, Data: data})
		ts.Check(err)
		queue = append(queue, links...)
	}
	out := make([]bool, len(pack))
	starts := sections(ts, pack)
	for i, start := range starts[1 : len(starts)-1] {
		_, k := binary.Uvarint(pack[start:])
		_, c, err := cid.CidFromBytes(pack[start+k:])
		ts.Check(err)
		for at := start; at < starts[i+2]; at++ {
			out[at] = held[c]
		}
	}
	return out
}

// cmdDamageFile flips a bit in the first, the middle and the last byte of each file
// of a folder of the repository, one at a time. Each must be found by verify.
func cmdDamageFile(ts *testscript.TestScript, _ bool, args []string) {
	repo := ts.MkAbs(args[0])
	files, err := filepath.Glob(filepath.Join(repo, args[1], "*"))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no files in %s", args[1])
	}
	for _, file := range files {
		good, err := os.ReadFile(file)
		ts.Check(err)
		for _, at := range []int{0, len(good) / 2, len(good) - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 1
			ts.Check(os.WriteFile(file, bad, 0o600))
			status, words := quietly(ts, append([]string{"verify", "--all", "--repo", repo}, args[2:]...)...)
			ts.Check(os.WriteFile(file, good, 0o600))
			if status != exitVerification {
				ts.Fatalf("%s, bit flipped at offset %d: exit status %d\n%s", file, at, status, words)
			}
		}
	}
}

// quietly runs the program without a trace in the script's log, unless there is
// something wrong.
func quietly(ts *testscript.TestScript, args ...string) (int, string) {
	out, err := program(ts, args...).CombinedOutput()
	status := exitStatus(ts, err)
	if bytes.Contains(out, []byte("panic:")) {
		ts.Fatalf("it panicked:\n%s", out)
	}
	return status, string(out)
}

// refused demands that restore, or import, does not take an archive, and that
// nothing is restored. repo must not hold what the archive lacks.
func refused(ts *testscript.TestScript, what, file, trust, repo string, byImport bool) bool {
	target := ts.MkAbs("refused")
	args := []string{"restore", "p@latest", "--from", file, "--to", target}
	if byImport {
		args = []string{"import", file}
	}
	ok := true
	if status, words := quietly(ts, append(args, "--trust", trust, "--repo", repo)...); status != exitVerification {
		ts.Logf("%s, %s: exit status %d\n%s", what, args[0], status, words)
		ok = false
	}
	if _, err := os.Lstat(target); err == nil {
		ts.Logf("%s: the target is there", what)
		ok = false
	}
	return ok
}

// cmdDamageCAR flips bits of an archive, one at a time; none may be taken.
func cmdDamageCAR(ts *testscript.TestScript, _ bool, args []string) {
	number, err := strconv.Atoi(args[2])
	ts.Check(err)
	good, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	random := rand.New(rand.NewPCG(5, 6))
	file := ts.MkAbs("flipped.car")
	ok := true
	repo := ts.MkAbs("of-flipped")
	for i, at := range offsetsToTry(ts, good, number) {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << random.IntN(8)
		ts.Check(os.WriteFile(file, bad, 0o600))
		ok = refused(ts, fmt.Sprintf("bit flipped at offset %d", at), file, args[1], repo, i%2 == 0) && ok
	}
	if !ok {
		ts.Fatalf("a damaged archive was not refused as it should be")
	}
}

// cmdCutCAR shortens an archive to nothing, into its header, to the end of each
// section, and into each section; none may be taken.
func cmdCutCAR(ts *testscript.TestScript, _ bool, args []string) {
	good, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	file := ts.MkAbs("shortened.car")
	ok := true
	for _, start := range sections(ts, good) {
		for _, length := range []int{start, start + 30} {
			if length >= len(good) {
				continue
			}
			ts.Check(os.WriteFile(file, good[:length], 0o600))
			repo := ts.MkAbs("of-shortened")
			ok = refused(ts, fmt.Sprintf("cut at %d", length), file, args[1], repo, start%2 == 0) && ok
			ts.Check(os.RemoveAll(repo))
		}
	}
	if !ok {
		ts.Fatalf("a shortened archive was not refused as it should be")
	}
}
