package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/restore"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// The exit statuses of the command; README.md says what each asks of the caller.
const (
	exitFailed       = 1
	exitUsage        = 2
	exitVerification = 3
	exitNotFound     = 4
	exitDecide       = 5
	exitInterrupted  = 6
	exitHeld         = 7
)

// usagef is an error of the caller's command line.
func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{savepoints.ErrUsage}, args...)...)
}

// failure is a kind of error: the exit status, and the code in JSON.
type failure struct {
	err    error
	status int
	code   string
}

// failures are looked through in order: an error that is of several kinds is the
// first of them. What a person must decide comes before what is merely wrong,
// what is wrong before what is absent.
var failures = []failure{
	{node.ErrHeld, exitHeld, "repository_held"},
	{anchor.ErrHeadChanged, exitHeld, "log_head_changed"}, // a writer that no lock kept out
	{anchor.ErrFork, exitDecide, "log_fork"},
	{anchor.ErrRollback, exitDecide, "log_rollback"},
	{anchor.ErrStale, exitDecide, "stale"},
	{entry.ErrFrozen, exitDecide, "log_frozen"},
	{savepoints.ErrConflict, exitDecide, "conflict"},
	{savepoints.ErrErased, exitDecide, "erased"},
	{savepoints.ErrTrustConflict, exitDecide, "trust_conflict"},
	{savepoints.ErrAmbiguous, exitDecide, "ambiguous"},
	{savepoints.ErrNotContinued, exitDecide, "log_not_continued"},
	{savepoints.ErrUnwitnessed, exitDecide, "unwitnessed"},
	{restore.ErrTarget, exitDecide, "target_not_empty"},
	{restore.ErrBusy, exitDecide, "target_busy"},
	{node.ErrRepoExists, exitDecide, "repository_exists"},

	// Witnesses that gave no cosignature may have given something wrong as well.
	{anchor.ErrNoQuorum, exitNotFound, "no_quorum"},

	{savepoints.ErrAudit, exitVerification, "audit"},
	{hcs.ErrChain, exitVerification, "mirror_node_lies"},
	{hcs.ErrDisagree, exitVerification, "mirror_nodes_disagree"},
	{anchor.ErrPolicy, exitVerification, "trust_policy_unusable"},
	{anchor.ErrUntrusted, exitVerification, "log_not_trusted"},
	{anchor.ErrCorrupt, exitVerification, "log_corrupt"},
	{entry.ErrContradiction, exitVerification, "contradiction"},
	{entry.ErrInvalid, exitVerification, "entry_invalid"},
	{entry.ErrNotSavepoint, exitVerification, "entry_of_no_savepoint"},
	{entry.ErrUnknownType, exitVerification, "unknown_entry"},
	{entry.ErrRule, exitVerification, "log_rule_broken"},
	{dag.ErrHash, exitVerification, "hash_mismatch"},
	{dag.ErrNotCanonical, exitVerification, "not_canonical"},
	{dag.ErrVersion, exitVerification, "unknown_version"},
	{dag.ErrManifest, exitVerification, "manifest_invalid"},
	{dag.ErrForeignBlock, exitVerification, "foreign_block"},
	{dag.ErrTruncated, exitVerification, "truncated"},
	{dag.ErrMalformed, exitVerification, "not_a_car"},
	{dag.ErrLimit, exitVerification, "dag_too_large"},
	{dag.ErrUnsupported, exitVerification, "unsupported_block"},
	{savepoints.ErrKeys, exitVerification, "unusable_keys"},
	{savepoints.ErrArchive, exitVerification, "not_an_archive"},
	{savepoints.ErrDamaged, exitVerification, "damaged"},
	{node.ErrDamaged, exitVerification, "store_damaged"},
	{node.ErrTooLong, exitVerification, "file_too_long"},

	{savepoints.ErrUsage, exitUsage, "usage"},
	{node.ErrNotFile, exitUsage, "not_a_file"},
	{savepoints.ErrNoTrust, exitUsage, "no_trust_policy"},
	{savepoints.ErrNoLogKey, exitUsage, "no_log_key"},
	{anchor.ErrNotIncluded, exitNotFound, "no_entry"},
	{savepoints.ErrNoPolicyKey, exitUsage, "no_policy_key"},
	{dag.ErrName, exitUsage, "unusable_name"},
	{dag.ErrNameCollision, exitUsage, "name_collision"},
	{node.ErrExposed, exitUsage, "address_exposed"},
	{syscall.ENOTDIR, exitUsage, "not_a_folder"},

	{replication.ErrNoTarget, exitUsage, "no_target"},
	{savepoints.ErrNotReplicated, exitNotFound, "not_replicated"},
	{savepoints.ErrFragile, exitNotFound, "fragile"},
	{savepoints.ErrNotFound, exitNotFound, "no_savepoint"},
	{node.ErrNoRepo, exitNotFound, "no_repository"},
	{node.ErrUnreachable, exitNotFound, "unreachable"},
	{node.ErrIncomplete, exitNotFound, "incomplete"},
	{anchor.ErrUnavailable, exitNotFound, "unavailable"},
	{anchor.ErrNoLog, exitNotFound, "no_log"},
	{dag.ErrNotFound, exitNotFound, "not_found"},

	{node.ErrNewerRepo, exitFailed, "newer_repository"},
}

// classify finds the kind of an error.
func classify(ctx context.Context, err error) failure {
	if ctx.Err() != nil {
		return failure{err, exitInterrupted, "interrupted"}
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f
		}
	}
	return failure{err, exitFailed, "failed"}
}
