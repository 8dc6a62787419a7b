// Package cluster names the ipfs-cluster that the tests of bench/peers build, as a peer
// that offers the IPFS Pinning Service API.
//
// It is a Go module of its own because ipfs-cluster does not build with the modules of
// kubo's version.
package cluster
