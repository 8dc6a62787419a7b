package mrv

import (
	"strconv"
	"time"
)

// The block types this runner executes.
const (
	kindContainer = "interfaceContainerBlock"
	kindStep      = "interfaceStepBlock"
	kindInfo      = "informationBlock"
	kindRoles     = "policyRolesBlock"
	kindRequest   = "requestVcDocumentBlock"
	kindSend      = "sendToGuardianBlock"
	kindButton    = "buttonBlock"
	kindSaveState = "saveStateBlock"
	kindTimer     = "timerBlock"
	kindAggregate = "aggregateDocumentBlock"
	kindCalculate = "calculateContainerBlock"
	kindSplit     = "splitBlock"
	kindMint      = "mintDocumentBlock"
	kindSwitch    = "switchBlock"
)

// Event names, as in Guardian.
const (
	eventRun        = "RunEvent"
	eventRestore    = "RestoreEvent"
	eventTimer      = "TimerEvent"
	eventStartTimer = "StartTimerEvent"
	eventStopTimer  = "StopTimerEvent"
)

// Roles that are not given by a policy.
const (
	roleNone = "NO_ROLE"
	roleAny  = "ANY_ROLE"
)

// displacedEnergy is the one formula a calculateContainerBlock may name.
const displacedEnergy = "displaced-energy/1"

type noOptions struct{}

type stepOptions struct {
	Cyclic      bool     `json:"cyclic"`
	FinalBlocks []string `json:"finalBlocks"`
}

type rolesOptions struct {
	Roles []string `json:"roles"`
}

type requestOptions struct {
	Schema string `json:"schema"`
	IDType string `json:"idType"`
}

type sendOptions struct {
	DataSource   string       `json:"dataSource"`
	DocumentType string       `json:"documentType"`
	EntityType   string       `json:"entityType"`
	Options      []nameOption `json:"options"`
}

type nameOption struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type saveOptions struct {
	Title string `json:"title"`
	When  string `json:"when"`
	Mode  string `json:"mode"`
}

func (o *saveOptions) when() string { return orDefault(o.When, "exit") }
func (o *saveOptions) mode() string { return orDefault(o.Mode, "sync") }

type timerOptions struct {
	StartDate time.Time `json:"startDate"`
	Period    string    `json:"period"`
	Interval  int       `json:"periodInterval"`
}

type aggregateOptions struct {
	AggregateType string `json:"aggregateType"`
	Condition     string `json:"condition"`
	count         int    // read from Condition
}

type calculateOptions struct {
	InputSchema       string `json:"inputSchema"`
	OutputSchema      string `json:"outputSchema"`
	Formula           string `json:"formula"`
	GridGramsPerKwh   int64  `json:"gridGramsPerKwh"`
	FuelGramsPerLitre int64  `json:"fuelGramsPerLitre"`
}

type splitOptions struct {
	Threshold   string `json:"threshold"`
	SourceField string `json:"sourceField"`
	threshold   int64  // read from Threshold
}

type mintOptions struct {
	TokenID     string `json:"tokenId"`
	Rule        string `json:"rule"`
	AccountType string `json:"accountType"`
	Memo        string `json:"memo"`
}

type switchOptions struct {
	ExecutionFlow string      `json:"executionFlow"`
	Conditions    []condition `json:"conditions"`
}

type condition struct {
	Type  string `json:"type"`
	Field string `json:"field"`
	Value string `json:"value"`
}

// newOptions returns empty options of a block type, nil for an unknown one.
func newOptions(kind string) any {
	switch kind {
	case kindContainer, kindInfo, kindButton:
		return &noOptions{}
	case kindStep:
		return &stepOptions{}
	case kindRoles:
		return &rolesOptions{}
	case kindRequest:
		return &requestOptions{}
	case kindSend:
		return &sendOptions{}
	case kindSaveState:
		return &saveOptions{}
	case kindTimer:
		return &timerOptions{}
	case kindAggregate:
		return &aggregateOptions{}
	case kindCalculate:
		return &calculateOptions{}
	case kindSplit:
		return &splitOptions{}
	case kindMint:
		return &mintOptions{}
	case kindSwitch:
		return &switchOptions{}
	}
	return nil
}

// inputsOf lists the events a block type takes.
func inputsOf(kind string) []string {
	switch kind {
	case kindContainer, kindRoles:
		return nil
	case kindTimer:
		return []string{eventStartTimer, eventStopTimer}
	case kindRequest:
		return []string{eventRun, eventRestore}
	}
	return []string{eventRun}
}

// outputs lists the events b may put out.
func (b *block) outputs() []string {
	switch b.kind {
	case kindContainer, kindRoles, kindStep:
		return nil
	case kindTimer:
		return []string{eventTimer}
	case kindButton:
		return b.buttons
	case kindSwitch:
		var out []string
		for i := range b.options.(*switchOptions).Conditions {
			out = append(out, "Condition_"+strconv.Itoa(i))
		}
		return out
	}
	return []string{eventRun}
}

// takesInput tells whether users act on this block.
func (b *block) takesInput() bool {
	return b.kind == kindRoles || b.kind == kindRequest || b.kind == kindButton
}
