// Package publish puts heads of a log on a topic of the Hedera Consensus Service. It is
// a module of its own because it links the ledger's software development kit, which what
// only reads a topic (package hcs) does not need.
//
// [New] makes the hcs.Publisher, and [Watch] keeps the newest head of a log on a topic.
// The program cmd/ipfs-savepoint-hcs does both, beside "ipfs-savepoint serve" and not in
// it: the kit would make that 11 MB larger for everybody, and the key of the account that
// pays is kept from a process that answers to the network.
//
// The account that it is given pays for each message, at
// most [Config.MaxFee]. A topic should have a submit key: without one anybody may write
// to it, which readers ignore but have to read.
//
// # What is believed
//
// The kit speaks to consensus nodes over plain gRPC on their port 50211, and over TLS on
// port 50212. Transactions are signed and public, so nothing is lost by that; but a
// receipt is worth as much as the connection it came over. What settles it is reading the
// topic from mirror nodes, with the receipt's position as hcs.Options.After.
//
// # Keys
//
// A key is a crypto.Signer of Ed25519, or a file that only its owner may read. It is
// given to the kit as a function that signs, is in no error, and nothing is logged: the
// kit's own logger is switched off.
package publish
