// Package peers holds other implementations of what ipfs-savepoint writes, and
// the tests that compare with them: kubo, which the tests build from its Go
// module, and the JavaScript of IPFS, which they install from package-lock.json.
//
// It is a Go module of its own, so that none of this weighs on whoever builds or
// imports ipfs-savepoint. What the peers say is kept in testdata/golden, where
// the tests of package dag read it without them. To write those files anew:
//
//	cd bench/peers && go test -run TestGolden -update
//
// The benchmarks measure beside the peers in the same run, and print seconds (medians of
// the rounds) and ratios of them. PEERS_STATE names a folder with the states to use:
// state-000, and state-001 with few changes to it. Without it they are made, and small.
//
//	cd bench/peers && PEERS_STATE=DIR go test -run - -bench Fetch -benchtime 3x -timeout 60m
package peers
