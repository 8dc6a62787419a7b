package main

import (
	"runtime"
	"runtime/debug"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/spf13/cobra"
)

// version of the program, as CHANGELOG.md has it.
const version = "0.1.0"

func (e *env) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of the program and of what it writes",
		Args:  exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			revision := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			return e.result(map[string]any{
				"version": version, "revision": revision, "go": runtime.Version(),
				"profile": dag.Profile, "manifest": dag.ManifestVersion, "repository": node.Version,
			}, "ipfs-savepoint %s (%s, CID profile %s, repository version %d)\n", version, runtime.Version(), dag.Profile, node.Version)
		},
	}
}
