// Package replication brings DAGs of a repository to other places, keeps trying until
// they are there, and asks places whether they serve what they should.
//
// # What this package may touch
//
// The repository, of which it reads IPFS blocks and keeps records of the kind
// "replication"; the network; and the folders that config.toml names. It knows no
// save point and no log: the owner of a [Queue] says which DAGs are to be replicated,
// and how each is written as a file.
//
// # Targets
//
// A [Target] is a place to bring DAGs to. Each kind is an engine that exists:
//
//	pinning service   any endpoint of the IPFS Pinning Service API, such as that of
//	                  ipfs-cluster; it fetches from this node's own addresses
//	kubo              the HTTP RPC of a kubo node: dag/import, and pin/update after
//	                  only what differs from a DAG that is pinned there
//	savepoint         another ipfs-savepoint, through its Pinning Service API
//	folder            a folder or mounted bucket, which takes CAR files
//
// A push may be repeated; what is there already is not sent again. It ends well only
// when the target was asked afterwards and says that the DAG is pinned there, or, of a
// folder, when the file was read back. Bearer tokens are read from their files at
// each use, and are in no record and no message.
//
// # The queue
//
// What is to be done is what the owner lists, less what the records say is done: a
// crash between taking a DAG and queuing it cannot lose it. A record is made when a
// push ended: done, or waiting with the reason and the time of the next try, which
// comes later each time. Records survive restarts. A target that cannot be reached
// costs one try at a time, whatever waits for it. One thing is pushed to a target at
// a time. A folder on a file system that does not answer any more cannot keep anybody
// waiting who was told to stop: the system call is left behind, and the folder not
// used again until it has returned.
//
// # Asking
//
// [Serves] asks a [Place] for some IPFS blocks and believes none without its hash.
// That says that the place has these blocks, now; chosen at random by who asks, they
// stand for the DAG.
package replication
