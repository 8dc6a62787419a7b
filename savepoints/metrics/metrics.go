// Package metrics shows a monitor how far the logs of a bank are: what is signed and
// not yet witnessed, how old the log's name is, whether followed logs are reached.
//
// Sizes are numbers of log entries, and moments are Unix times, so that a lag is a
// difference that the monitor computes (docs/metrics.md). Labels are origins of logs and
// the names that a trust policy gives to witnesses, which are public, and nothing else.
//
// A scrape reads [savepoints.Bank.Status] and nothing else: it touches no network and
// waits for nobody who does.
package metrics

import (
	"context"
	"net/http"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// scrapeLimit bounds the reading of one scrape.
	scrapeLimit = 5 * time.Second
	// scrapes is how many scrapes are answered at a time; others get 503.
	scrapes = 4
)

// Handler answers with the metrics of a bank in the Prometheus text format. It has a
// registry of its own.
func Handler(b *savepoints.Bank) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{b})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: scrapes})
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ipfs_savepoint_"+name, help, append([]string{"origin"}, labels...), nil)
}

var (
	logOpen      = desc("log_open", "1 if the repository's own log could be opened, 0 if not.")
	logStopped   = desc("log_stopped", "1 if this host signs nothing because somebody has seen more of its log, or another history, or because that cannot be read; 0 if not.")
	logSigned    = desc("log_signed_size", "Entries under the newest signed head of the own log.")
	logPublished = desc("log_published_size", "Entries under the newest head of the own log that its trust policy accepts.")
	logReceipts  = desc("log_receipts_size", "Entries of the own log up to which the receipts kept here have the cosignatures that the trust policy demands.")
	nameSize     = desc("name_size", "Entries under the head that the IPNS name of the own log stands for.")
	nameSigned   = desc("name_signed_timestamp_seconds", "When the record of the own log's IPNS name was signed.")
	nameError    = desc("name_error", "1 if the record of the own log's IPNS name cannot be read, 0 otherwise.")
	cosigned     = desc("witness_cosigned_timestamp_seconds", "When the witness last cosigned the newest head of the own log.", "witness")
	witnessError = desc("witness_error", "1 if the witness gave no cosignature when it was last asked, 0 otherwise.", "witness")
	ledgerSize   = desc("ledger_size", "Entries under the largest head of the own log on the public ledger.")
	ledgerTime   = desc("ledger_message_timestamp_seconds", "When the ledger took that head.")
	ledgerRead   = desc("ledger_read_timestamp_seconds", "When the ledger's topic was last read to its end.")
	ledgerError  = desc("ledger_error", "1 if anything went wrong when the topic was last read, or it contradicts the own log; 0 if not.")
	followSize   = desc("follow_size", "Entries under the verified head of a followed log.")
	followSeen   = desc("follow_reached_timestamp_seconds", "When a source last showed a head of the followed log that was accepted.")
	followError  = desc("follow_error", "1 if anything went wrong at the last look at the followed log, or its copy's head cannot be read, 0 if not.")
)

// collector computes all metrics at each scrape.
type collector struct{ b *savepoints.Bank }

func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		logOpen, logStopped, logSigned, logPublished, logReceipts, nameSize, nameSigned, nameError,
		cosigned, witnessError, ledgerSize, ledgerTime, ledgerRead, ledgerError, followSize, followSeen, followError,
	} {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	s, err := c.b.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(logOpen, err)
		return
	}
	g := gauges(out)
	if s.Own != nil {
		g.own(*s.Own)
	}
	for _, f := range s.Followed {
		if f.Size >= 0 {
			g.set(followSize, float64(f.Size), f.Origin)
		}
		g.moment(followSeen, f.Reached, f.Origin)
		g.is(followError, f.Err != nil, f.Origin)
	}
}

// gauges sends gauges. What is not known is left out.
type gauges chan<- prometheus.Metric

func (g gauges) own(s savepoints.OwnStatus) {
	g.is(logOpen, s.Open, s.Origin)
	g.is(logStopped, s.Stopped, s.Origin)
	if s.Open {
		g.set(logSigned, float64(s.Signed), s.Origin)
		g.set(logPublished, float64(s.Published), s.Origin)
		g.set(logReceipts, float64(s.Receipts), s.Origin)
	}
	g.is(nameError, s.NameErr != nil, s.Origin)
	if !s.NameSigned.IsZero() {
		g.set(nameSize, float64(s.NameSize), s.Origin)
		g.moment(nameSigned, s.NameSigned, s.Origin)
	}
	if l := s.Ledger; l != nil {
		g.set(ledgerSize, float64(l.Size), s.Origin)
		g.moment(ledgerTime, l.Time, s.Origin)
		g.moment(ledgerRead, l.Read, s.Origin)
		g.is(ledgerError, l.Err != nil, s.Origin)
	}
	for _, w := range s.Witnesses {
		// One that is not known to have ever done so is behind since ever.
		g.set(cosigned, seconds(w.Cosigned), s.Origin, w.Name)
		g.is(witnessError, w.Err != nil, s.Origin, w.Name)
	}
}

func (g gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	g <- m
}

func (g gauges) is(d *prometheus.Desc, yes bool, labels ...string) {
	v := 0.0
	if yes {
		v = 1
	}
	g.set(d, v, labels...)
}

func (g gauges) moment(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		g.set(d, seconds(t), labels...)
	}
}

// seconds since 1970; 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
