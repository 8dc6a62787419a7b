package mrv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
)

func TestPoliciesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		definition string
		want       error
		tag        string
	}{
		"empty":                {"", mrv.ErrMalformedPolicy, ""},
		"no JSON":              {"{", mrv.ErrMalformedPolicy, ""},
		"two values":           {string(mrv.Bundled()) + "{}", mrv.ErrMalformedPolicy, ""},
		"no tree":              {`{"uuid":"a","name":"a","version":"1","policyTag":"a"}`, mrv.ErrMalformedPolicy, ""},
		"unknown field":        {replaced(t, `"policyTag":`, `"policyTagg":`), mrv.ErrMalformedPolicy, ""},
		"uuid with a slash":    {replaced(t, `"6d0f7a52-`, `"6d0f/a52-`), mrv.ErrMalformedPolicy, ""},
		"role twice":           {replaced(t, `["PROJECT_DEVELOPER", "VERIFIER"],`, `["VERIFIER", "VERIFIER"],`), mrv.ErrMalformedPolicy, ""},
		"schema twice":         {replaced(t, `"#project&1.0.0"`, `"#yearly-report&1.0.0"`), mrv.ErrMalformedPolicy, ""},
		"schema field type":    {replaced(t, `"projectName", "type": "string"`, `"projectName", "type": "float"`), mrv.ErrMalformedPolicy, ""},
		"block type":           {replaced(t, `"blockType": "splitBlock"`, `"blockType": "httpRequestBlock"`), mrv.ErrUnknownBlockType, "whole_tonnes"},
		"no block type":        {replaced(t, `"blockType": "splitBlock",`, ``), mrv.ErrUnknownBlockType, "whole_tonnes"},
		"tag twice":            {replaced(t, `"tag": "report_save"`, `"tag": "project_save"`), mrv.ErrDuplicateTag, "project_save"},
		"save tag twice":       {replaced(t, `"tag": "report_submitted"`, `"tag": "registered"`), mrv.ErrDuplicateSaveStateTag, "registered"},
		"save tag of another":  {replaced(t, `"tag": "report_submitted"`, `"tag": "monitoring"`), mrv.ErrDuplicateTag, "monitoring"},
		"when":                 {replaced(t, `"when": "exit"`, `"when": "never"`), mrv.ErrInvalidSaveStateOption, "registered"},
		"mode":                 {replaced(t, `"mode": "sync"`, `"mode": "later"`), mrv.ErrInvalidSaveStateOption, "registered"},
		"save without title":   {replaced(t, `"title": "yearly report submitted"`, `"title": ""`), mrv.ErrInvalidSaveStateOption, "report_submitted"},
		"unknown save option":  {replaced(t, `"mode": "sync"`, `"mood": "sync"`), mrv.ErrInvalidSaveStateOption, "registered"},
		"event target":         {replaced(t, `"target": "open_period"`, `"target": "nowhere"`), mrv.ErrUnknownEventTag, "registered"},
		"event source":         {replaced(t, `{"source": "registered"`, `{"source": "nowhere"`), mrv.ErrUnknownEventTag, "open_period"},
		"event output":         {replaced(t, `"output": "Button_1"`, `"output": "Button_2"`), mrv.ErrInvalidEvent, "project_decision"},
		"event input":          {replaced(t, `"input": "StartTimerEvent"`, `"input": "RunEvent"`), mrv.ErrInvalidEvent, "registered"},
		"event actor":          {replaced(t, `"actor": "owner"`, `"actor": "nobody"`), mrv.ErrInvalidEvent, "project_returned"},
		"block id twice":       {replaced(t, `8d55-000000000003`, `8d55-000000000002`), mrv.ErrInvalidOption, "project_registration"},
		"permission":           {replaced(t, `"permissions": ["NO_ROLE"]`, `"permissions": ["ADMIN"]`), mrv.ErrInvalidOption, "choose_role"},
		"role to choose":       {replaced(t, `"roles": ["PROJECT_DEVELOPER"`, `"roles": ["ADMIN"`), mrv.ErrInvalidOption, "choose_role"},
		"schema of a form":     {replaced(t, `"schema": "#project`, `"schema": "#projekt`), mrv.ErrInvalidOption, "project_form"},
		"unknown option":       {replaced(t, `"entityType": "project"`, `"entitytype2": "project"`), mrv.ErrInvalidOption, "project_save"},
		"timer period":         {replaced(t, `"period": "yearly"`, `"period": "hourly"`), mrv.ErrInvalidOption, "open_period"},
		"timer interval":       {replaced(t, `"periodInterval": 1`, `"periodInterval": 0`), mrv.ErrInvalidOption, "open_period"},
		"aggregate condition":  {replaced(t, `"count >= 24"`, `"count > 24"`), mrv.ErrInvalidOption, "yearly_total"},
		"formula":              {replaced(t, `displaced-energy/1`, `displaced-energy/2`), mrv.ErrInvalidOption, "emission_reduction"},
		"threshold":            {replaced(t, `"threshold": "1000000"`, `"threshold": "0"`), mrv.ErrInvalidOption, "whole_tonnes"},
		"source field":         {replaced(t, `"sourceField": "document.`, `"sourceField": "option.`), mrv.ErrInvalidOption, "whole_tonnes"},
		"token":                {replaced(t, `"tokenId": "0.0.7001001",`+"\n", `"tokenId": "0.0.1",`+"\n"), mrv.ErrInvalidOption, "mint_credits"},
		"condition":            {replaced(t, `{"type": "equal"`, `{"type": "above"`), mrv.ErrInvalidOption, "more_years"},
		"final block":          {replaced(t, `["programme_end"]`, `["mint_credits"]`), mrv.ErrInvalidOption, "reporting_year"},
		"buttons on a form":    {replaced(t, `"title": "Describe the project"`, `"buttons": [{"tag": "Button_0"}]`), mrv.ErrInvalidOption, "project_form"},
		"children of a form":   {replaced(t, `"schema": "#project&1.0.0",`, `"schema": "#project&1.0.0", "children": [{}],`), mrv.ErrInvalidOption, "project_form"},
		"too deep":             {deep(40), mrv.ErrMalformedPolicy, ""},
		"too large":            {string(mrv.Bundled()) + strings.Repeat(" ", 1<<20), mrv.ErrMalformedPolicy, ""},
		"tag with a separator": {replaced(t, `"tag": "choose_role"`, `"tag": "../choose_role"`), mrv.ErrInvalidOption, "../choose_role"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mrv.ParsePolicy([]byte(c.definition))
			var refused *mrv.PolicyError
			if !errors.As(err, &refused) || !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.tag != "" && refused.Tag != c.tag {
				t.Errorf("block %q is blamed, want %q: %v", refused.Tag, c.tag, err)
			}
		})
	}
}

// deep is a policy of n nested containers.
func deep(n int) string {
	tree := ""
	for i := n; i > 0; i-- {
		tag := "c" + strings.Repeat("x", i)
		tree = `{"id":"` + tag + `","blockType":"interfaceContainerBlock","tag":"` + tag + `","children":[` + tree + `]}`
	}
	return `{"uuid":"a","name":"a","version":"1","policyTag":"a","config":` + tree + `}`
}

func TestDisabledEventIsNotFollowed(t *testing.T) {
	definition := replaced(t, `"input": "StartTimerEvent", "actor": "", "disabled": false`, `"input": "StartTimerEvent", "actor": "", "disabled": true`)
	r := start(t, parse(t, definition), mrv.Script(1, 1))
	if err := r.Run(context.Background(), 0); !errors.Is(err, mrv.ErrInputRefused) || r.Height() != 6 {
		t.Errorf("height %d: %v", r.Height(), err)
	}
}

func TestPolicyAccessors(t *testing.T) {
	p := parse(t, string(mrv.Bundled()))
	want := []mrv.SaveState{
		{Tag: "registered", Title: "project registered, start of the MRV loop", When: "exit", Mode: "sync"},
		{Tag: "report_submitted", Title: "yearly report submitted", When: "exit", Mode: "sync"},
	}
	if got := p.SaveStates(); !slices.Equal(got, want) {
		t.Errorf("save states %+v", got)
	}
	defaults := parse(t, replaced(t, `"when": "exit",`, ``, `"mode": "sync",`, ``))
	if got := defaults.SaveStates(); !slices.Equal(got, want) {
		t.Errorf("save states %+v", got)
	}
	if p.Name() != "Solar mini-grid MRV 1.0.0" || len(p.ID()) != 36 || len(p.Hash()) != 64 {
		t.Errorf("name %q, id %q, hash %q", p.Name(), p.ID(), p.Hash())
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, mrv.Bundled()); err != nil {
		t.Fatal(err)
	}
	if parse(t, compact.String()).Hash() != p.Hash() {
		t.Error("white space changes the hash")
	}
	if defaults.Hash() == p.Hash() {
		t.Error("a change keeps the hash")
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(mrv.Bundled())
	f.Add([]byte(deep(3)))
	f.Add([]byte(`{"uuid":"a","name":"a","version":"1","policyTag":"a","config":{"id":"a","blockType":"saveStateBlock","tag":"a","title":"t"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := mrv.ParsePolicy(b)
		if err != nil {
			var refused *mrv.PolicyError
			if !errors.As(err, &refused) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		r, err := mrv.New(p, nil)
		if err != nil || !r.Done() {
			t.Fatalf("an accepted policy does not start: %v", err)
		}
		if _, err := mrv.Load(p, sequence(documents(r))); err != nil {
			t.Fatalf("the first state of an accepted policy does not load: %v", err)
		}
	})
}
