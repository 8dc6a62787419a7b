// Package kopia measures the size of a repository beside that of kopia, which it builds
// from its Go module, with the same folder in the same run. It is a Go module of its
// own, so that kopia does not weigh on whoever builds ipfs-savepoint.
//
// KOPIA_STATE names the folder; without it a small one is made.
//
//	cd bench/kopia && KOPIA_STATE=DIR go test -run - -bench . -benchtime 1x -timeout 30m
package kopia
