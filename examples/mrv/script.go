package mrv

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// recordsPerYear and recordDays: 24 metering records of 15 days each; the
// last days of a year are for the report and its verification.
const (
	recordsPerYear = 24
	recordDays     = 15
)

// author writes a script.
type author struct {
	rng                 *rand.Rand
	inputs              []Input
	developer, verifier string
	reading             int64 // of the energy meter, it only goes up
}

type formProject struct {
	ProjectID      string `json:"projectId"`
	ProjectName    string `json:"projectName"`
	Developer      string `json:"developer"`
	Country        string `json:"country"`
	Site           string `json:"site"`
	Methodology    string `json:"methodology"`
	CapacityKw     int    `json:"capacityKw"`
	CreditingYears int    `json:"creditingYears"`
	Baseline       string `json:"baseline"`
	MonitoringPlan string `json:"monitoringPlan"`
}

type formRecord struct {
	Period      int    `json:"period"`
	From        string `json:"from"`
	To          string `json:"to"`
	Meter       string `json:"meter"`
	Opening     int64  `json:"openingReadingKwh"`
	Closing     int64  `json:"closingReadingKwh"`
	EnergyKwh   int64  `json:"energyKwh"`
	FuelLitres  int64  `json:"fuelLitres"`
	Outage      int64  `json:"outageMinutes"`
	Irradiation int64  `json:"irradiationWhPerM2"`
	Remarks     string `json:"remarks"`
}

type formReport struct {
	PreparedBy string `json:"preparedBy"`
	Narrative  string `json:"narrative"`
	Deviations string `json:"deviations"`
}

type decision struct {
	Button  string `json:"button"`
	Comment string `json:"comment"`
}

type roleChoice struct {
	Role string `json:"role"`
}

// Script returns the inputs of a whole run of the bundled policy: two users
// choose their roles, the project is returned once and then approved, and each
// year has 24 metering records, a report and its approval. With the yearly
// timer that makes 6 + 27*years steps. Equal arguments give equal scripts.
// Years below 1 count as 1, above 100 as 100, the most the policy allows.
func Script(seed int64, years int) []Input {
	years = min(max(years, 1), 100)
	a := &author{rng: rand.New(rand.NewPCG(uint64(seed), uint64(years)))}
	a.developer = fmt.Sprintf("did:example:developer-%08x", a.rng.Uint32())
	a.verifier = fmt.Sprintf("did:example:verifier-%08x", a.rng.Uint32())
	a.reading = a.rng.Int64N(50_000)
	a.registration(years)
	for y := range years {
		a.year(2027 + y)
	}
	return a.inputs
}

// add appends an input. The data are plain structs of texts and integers,
// which always have a JSON form.
func (a *author) add(at time.Time, user, block string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("mrv: script entry has no JSON form: %v", err))
	}
	a.inputs = append(a.inputs, Input{At: at, User: user, Block: block, Data: b})
}

func (a *author) registration(years int) {
	day := func(n int) time.Time { return time.Date(2026, time.October, n, 9, 0, 0, 0, time.UTC) }
	p := formProject{
		ProjectID:      fmt.Sprintf("PRJ-%06d", a.rng.IntN(1_000_000)),
		ProjectName:    "Mini-grid " + a.pick("Kitale", "Mbeya", "Tamale", "Garissa", "Zinder"),
		Developer:      "Highland Solar Cooperative",
		Country:        a.pick("Kenya", "Tanzania", "Ghana", "Niger"),
		Site:           fmt.Sprintf("Plot %d, next to the water tower", 1+a.rng.IntN(200)),
		Methodology:    "Displaced grid and diesel power, simplified, with direct metering at the feeder",
		CapacityKw:     100 + a.rng.IntN(150),
		CreditingYears: years,
		Baseline: "Households and workshops were served by a weak grid line and by diesel generators. " +
			"Without the project that would go on, for no other supply is planned in the district.",
		MonitoringPlan: "One sealed feeder meter.",
	}
	a.add(day(1), a.developer, "choose_role", roleChoice{Role: "PROJECT_DEVELOPER"})
	a.add(day(2), a.verifier, "choose_role", roleChoice{Role: "VERIFIER"})
	a.add(day(5), a.developer, "project_form", p)
	a.add(day(12), a.verifier, "project_decision", decision{Button: "Button_1", Comment: "The monitoring plan does not say how fuel is measured."})
	p.MonitoringPlan = "One sealed feeder meter, read every 15 days; fuel of the standby generator by delivery notes and dipstick, " +
		"both kept for ten years; the meter is calibrated every two years by an accredited laboratory."
	a.add(day(19), a.developer, "project_form", p)
	a.add(day(26), a.verifier, "project_decision", decision{Button: "Button_0", Comment: "Complete. Registered."})
}

func (a *author) year(year int) {
	start := time.Date(year, time.January, 1, 0, 0, 0, 0, time.UTC)
	for n := 1; n <= recordsPerYear; n++ {
		from := start.AddDate(0, 0, (n-1)*recordDays)
		to := from.AddDate(0, 0, recordDays)
		r := a.record(n)
		r.From, r.To = from.Format(time.DateOnly), to.Format(time.DateOnly)
		a.add(to.Add(8*time.Hour), a.developer, "monitoring_form", r)
	}
	end := start.AddDate(0, 0, recordsPerYear*recordDays)
	a.add(end.AddDate(0, 0, 1), a.developer, "report_form", formReport{
		PreparedBy: a.pick("A. Wanjiru", "J. Mwakyusa", "E. Mensah"),
		Narrative: fmt.Sprintf("In %d the mini-grid ran as described in the monitoring plan. All %d metering records were taken on time "+
			"and compared with the log of the inverter. The standby generator ran during cloudy weeks and maintenance only.", year, recordsPerYear),
		Deviations: a.pick("None.", "One meter seal was replaced; the protocol is on file.", "Two readings were taken a day late because of flooding."),
	})
	a.add(end.AddDate(0, 0, 3), a.verifier, "report_decision", decision{Button: "Button_0", Comment: "Recalculated from the records, no difference."})
}

func (a *author) record(n int) formRecord {
	energy := 9_000 + a.rng.Int64N(7_000)
	r := formRecord{
		Period: n, Meter: "FM-2207-A", Opening: a.reading, Closing: a.reading + energy, EnergyKwh: energy,
		FuelLitres: 20 + a.rng.Int64N(80), Outage: a.rng.Int64N(600), Irradiation: 60_000 + a.rng.Int64N(40_000),
		Remarks: a.pick("Clear weather, panels cleaned.", "Dust storm on two days, panels cleaned afterwards.",
			"Standby generator tested under load.", "Nothing to report."),
	}
	a.reading += energy
	return r
}

func (a *author) pick(choices ...string) string { return choices[a.rng.IntN(len(choices))] }
