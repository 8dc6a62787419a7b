// Package mrv runs a small measurement, reporting and verification policy, so
// that saving and restoring the state of a policy can be shown and tested on a
// real one.
//
// # The policy
//
// A policy is a tree of blocks in the form Guardian uses: every block has an
// id, a blockType, a tag, permissions, events and children, and options of
// its type. [ParsePolicy] takes the block types interfaceContainerBlock,
// interfaceStepBlock, informationBlock, policyRolesBlock,
// requestVcDocumentBlock, sendToGuardianBlock, buttonBlock, timerBlock,
// aggregateDocumentBlock, calculateContainerBlock, splitBlock,
// mintDocumentBlock, switchBlock and saveStateBlock, and refuses every other.
// It is no replacement for Guardian: it has the options the bundled policy
// needs, one project for each run, one fixed formula, and no signatures.
//
// In the bundled policy ([Bundled]) a developer registers a solar mini-grid
// and a verifier approves it (save-state block "registered"). Then each year
// a timer opens the reporting period, 24 metering records come in and are
// added up, the yearly report is submitted (save-state block
// "report_submitted"), the verifier approves it, and whole tonnes are minted;
// the grams that are left over count for the next year.
//
// # Steps
//
// A run goes forward in steps of height 1, 2, 3 and so on without gaps. A
// step is one input of the script or one due timer, with the whole chain of
// events it sets going. It takes effect as a whole or not at all. Time is
// logical: it is that of the script and the timers, never of the machine.
// Equal policies and scripts give states that are equal to the byte.
//
// # The state
//
// The state is a set of JSON documents named "collection/id.json" and nothing
// else: inputs still in the queue, timers, counters and the clock are
// documents too. Any state taken from [Runner.Documents], or given to the
// Save hook, goes on to the same end when it is given to [Load]. It holds no
// secret; a run has no keys.
//
// # The save-state block
//
// A saveStateBlock has a title, and the options when ("exit", the default, or
// "enter") and mode ("sync", the default, or "async"). When execution passes
// it, the Save hook is called at the step boundary. With "exit" that is the
// boundary after the step: the state holds the whole step. With "enter" it is
// the boundary before it, and the height is one less. The mode is not for the
// runner, which always waits for the hook; [Policy.SaveStates] hands it to the
// caller.
package mrv
