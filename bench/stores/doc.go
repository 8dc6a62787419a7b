// Package stores measures the store of IPFS blocks beside those that kubo uses,
// pebble and flatfs, with the same blocks in the same run. It is a Go module of
// its own, so that they do not weigh on whoever builds ipfs-savepoint.
//
//	cd bench/stores && go test -run - -bench . -benchtime 1x -timeout 30m
package stores
