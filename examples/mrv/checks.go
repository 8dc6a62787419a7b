package mrv

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// check is one condition on an option; field and value are for the error.
type check struct {
	field, value string
	ok           bool
}

// checkOptions checks what depends on the block type. It runs when the tree is
// complete, for some options name other blocks.
func (p *Policy) checkOptions(b *block) error {
	var checks []check
	switch o := b.options.(type) {
	case *stepOptions:
		checks = o.checks(b)
	case *rolesOptions:
		checks = o.checks(p)
	case *requestOptions:
		checks = []check{{"schema", o.Schema, p.schemas[o.Schema] != nil}, {"idType", o.IDType, o.IDType == "UUID"}}
	case *sendOptions:
		checks = o.checks()
	case *saveOptions:
		checks = o.checks()
	case *timerOptions:
		checks = o.checks()
	case *aggregateOptions:
		checks = o.checks()
	case *calculateOptions:
		checks = o.checks(p)
	case *splitOptions:
		checks = o.checks()
	case *mintOptions:
		checks = o.checks(p)
	case *switchOptions:
		checks = o.checks()
	}
	for _, c := range checks {
		if !c.ok {
			return &PolicyError{Tag: b.tag, Field: c.field, Value: shown(c.value), Err: b.optionError()}
		}
	}
	return nil
}

func (o *stepOptions) checks(b *block) []check {
	checks := []check{{"children", "0", len(b.children) > 0}}
	for _, tag := range o.FinalBlocks {
		isChild := slices.ContainsFunc(b.children, func(c *block) bool { return c.tag == tag })
		checks = append(checks, check{"finalBlocks", tag, isChild})
	}
	return checks
}

func (o *rolesOptions) checks(p *Policy) []check {
	checks := []check{{"roles", "", len(o.Roles) > 0}}
	for _, r := range o.Roles {
		checks = append(checks, check{"roles", r, slices.Contains(p.file.Roles, r)})
	}
	return checks
}

func (o *sendOptions) checks() []check {
	checks := []check{
		{"dataSource", o.DataSource, o.DataSource == "database"},
		{"documentType", o.DocumentType, o.DocumentType == "vc"},
		{"entityType", o.EntityType, o.EntityType != ""},
	}
	for _, opt := range o.Options {
		checks = append(checks, check{"options.name", opt.Name, opt.Name == "status"}, check{"options.value", opt.Value, opt.Value != ""})
	}
	return checks
}

func (o *saveOptions) checks() []check {
	return []check{
		{"title", o.Title, o.Title != ""},
		{"when", o.When, o.when() == "enter" || o.when() == "exit"},
		{"mode", o.Mode, o.mode() == "sync" || o.mode() == "async"},
	}
}

func (o *timerOptions) checks() []check {
	year := o.StartDate.Year()
	return []check{
		{"startDate", o.StartDate.String(), year >= 1900 && year <= 2200},
		{"period", o.Period, slices.Contains([]string{"yearly", "monthly", "daily"}, o.Period)},
		{"periodInterval", strconv.Itoa(o.Interval), o.Interval >= 1 && o.Interval <= 1000},
	}
}

// checks also reads the condition, "count >= n".
func (o *aggregateOptions) checks() []check {
	n, ok := strings.CutPrefix(o.Condition, "count >= ")
	count, err := strconv.Atoi(n)
	o.count = count
	return []check{
		{"aggregateType", o.AggregateType, o.AggregateType == "cumulative"},
		{"condition", o.Condition, ok && err == nil && count >= 1 && count <= 10000},
	}
}

func (o *calculateOptions) checks(p *Policy) []check {
	in, out := p.schemas[o.InputSchema], p.schemas[o.OutputSchema]
	return []check{
		{"inputSchema", o.InputSchema, in.hasIntegers("creditingYears", "energyKwh", "fuelLitres")},
		{"outputSchema", o.OutputSchema, out != nil},
		{"formula", o.Formula, o.Formula == displacedEnergy},
		{"gridGramsPerKwh", strconv.FormatInt(o.GridGramsPerKwh, 10), o.GridGramsPerKwh >= 0},
		{"fuelGramsPerLitre", strconv.FormatInt(o.FuelGramsPerLitre, 10), o.FuelGramsPerLitre >= 0},
	}
}

// hasIntegers tells whether every record of s has the named integers.
func (s *schema) hasIntegers(names ...string) bool {
	if s == nil {
		return false
	}
	for _, name := range names {
		has := func(f schemaField) bool { return f.Name == name && f.Type == "integer" }
		if !slices.ContainsFunc(s.Fields, has) {
			return false
		}
	}
	return true
}

// checks also reads the threshold.
func (o *splitOptions) checks() []check {
	n, err := strconv.ParseInt(o.Threshold, 10, 64)
	o.threshold = n
	_, fieldErr := subjectField(o.SourceField)
	return []check{
		{"threshold", o.Threshold, err == nil && n >= 1},
		{"sourceField", o.SourceField, fieldErr == nil},
	}
}

func (o *mintOptions) checks(p *Policy) []check {
	known := slices.ContainsFunc(p.file.Tokens, func(t token) bool { return t.ID == o.TokenID })
	return []check{
		{"tokenId", o.TokenID, known},
		{"rule", o.Rule, o.Rule == "units"},
		{"accountType", o.AccountType, o.AccountType == "default"},
	}
}

func (o *switchOptions) checks() []check {
	checks := []check{
		{"executionFlow", o.ExecutionFlow, o.ExecutionFlow == "firstTrue"},
		{"conditions", "", len(o.Conditions) > 0},
	}
	for _, c := range o.Conditions {
		switch c.Type {
		case "unconditional":
			checks = append(checks, check{"conditions.field", c.Field, c.Field == "" && c.Value == ""})
		default:
			_, err := subjectField(c.Field)
			checks = append(checks, check{"conditions.type", c.Type, c.Type == "equal" || c.Type == "not_equal"},
				check{"conditions.field", c.Field, err == nil})
		}
	}
	return checks
}

// subjectField reads a field path such as document.credentialSubject.0.total.
func subjectField(path string) (string, error) {
	name, ok := strings.CutPrefix(path, "document.credentialSubject.0.")
	if !ok || !validName(name) {
		return "", fmt.Errorf("%w: field path %q", ErrInvalidOption, shown(path))
	}
	return name, nil
}

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
