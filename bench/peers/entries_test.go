package peers

import (
	"encoding/hex"
	"encoding/json"
	"testing"
)

// entryRecords are log entries of every type (docs/formats.md, section 4) as DAG-JSON. The
// policy is "policy-1" of the instance 00 01 … 0f; where it is private, under the key
// "0123456789abcdef0123456789abcdef".
var entryRecords = []struct{ name, value string }{
	{"savepoint", `{"type": "savepoint", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z", "policy": {"/": {"bytes": "ez1uqUego93S8W59RyXsYxQwkB6qo2vM9uj08KRqvKo"}}, "sequence": 7, "height": 1000, "savepoint": {"/": {"bytes": "AXESIAWzq/JXml62ZAPNeL5Vf9hgYzof4hA8dkIDDe/jLGV/"}}}`},
	{"savepoint without height", `{"type": "savepoint", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 0, "time": "2026-01-02T03:04:05.000000006Z", "policy": {"/": {"bytes": "ez1uqUego93S8W59RyXsYxQwkB6qo2vM9uj08KRqvKo"}}, "sequence": 9007199254740991, "savepoint": {"/": {"bytes": "AXESIAWzq/JXml62ZAPNeL5Vf9hgYzof4hA8dkIDDe/jLGV/"}}}`},
	{"savepoint of a private policy", `{"type": "savepoint", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z", "policy": {"/": {"bytes": "sqwtsZkTqSRxZUqtzEf7Gy03z3t3CmI04U7NMgORzHo"}}, "sequence": 7, "height": 0, "savepoint": {"/": {"bytes": "AXESIAWzq/JXml62ZAPNeL5Vf9hgYzof4hA8dkIDDe/jLGV/"}}}`},
	{"retire", `{"type": "retire", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z", "policy": {"/": {"bytes": "ez1uqUego93S8W59RyXsYxQwkB6qo2vM9uj08KRqvKo"}}, "sequence": 7, "savepoint": {"/": {"bytes": "AXESIAWzq/JXml62ZAPNeL5Vf9hgYzof4hA8dkIDDe/jLGV/"}}}`},
	{"takeover", `{"type": "takeover", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 2, "time": "2026-01-02T03:04:05.000000006Z", "policy": {"/": {"bytes": "ez1uqUego93S8W59RyXsYxQwkB6qo2vM9uj08KRqvKo"}}}`},
	{"takeover from another log", `{"type": "takeover", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 2, "time": "2026-01-02T03:04:05.000000006Z", "policy": {"/": {"bytes": "ez1uqUego93S8W59RyXsYxQwkB6qo2vM9uj08KRqvKo"}}, "prevOrigin": "log.example/before", "prevCheckpoint": {"/": {"bytes": "bG9nLmV4YW1wbGUvYmVmb3JlCjEKQUFBQQoK4oCUIGxvZy5leGFtcGxlL2JlZm9yZSB4Cg"}}, "prevRoot": {"/": {"bytes": "AXASIEgTSU0TfhYxu6MB1ayrbnu3qnTOEYXUVlZe9R1zdney"}}}`},
	{"erase", `{"type": "erase", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z", "documents": [{"/": {"bytes": "AVUSID4j6BYAOVlKM4lPZWThsTSLvXoAiNQsSstz7q7VnACd"}}, {"/": {"bytes": "AVUSIMqXgRLKG73K+sIxs5oj3E2nhu/4FHxOcrmAd4Wv7ki7"}}, {"/": {"bytes": "AXASINNcQWqFuAfptThJFdbrtKn3NScT79iYV7RaJC9HNyip"}}]}`},
	{"rekey", `{"type": "rekey", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z", "keyRing": {"/": {"bytes": "AVUSIBa5dFgxVf3LEftoMqN74JwYx6zsv7NSwlo1USv9dVoz"}}}`},
	{"freeze", `{"type": "freeze", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z"}`},
	{"note", `{"type": "note", "v": 1, "origin": "log.example/a", "instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}}, "epoch": 1, "time": "2026-01-02T03:04:05.000000006Z", "text": "moved to another room: Übung"}`},
}

// goldenEntries are the bytes of log entries.
func goldenEntries(t *testing.T, k kubo) {
	var all manifests
	for _, r := range entryRecords {
		cid, data := k.putManifest(t, []byte(r.value))
		all.Accepted = append(all.Accepted, manifest{
			Name: r.name, Value: json.RawMessage(r.value), Hex: hex.EncodeToString(data), CID: cid, By: []string{"kubo", "js"},
		})
	}
	file := marshal(t, all)
	golden(t, "entries.json", file)
	var js []manifest
	if javaScript(t, "manifests", file, &js) {
		for i, m := range all.Accepted {
			if js[i].CID != m.CID || js[i].Hex != m.Hex {
				t.Errorf("%s: kubo says %s %s, JavaScript says %s %s", m.Name, m.CID, m.Hex, js[i].CID, js[i].Hex)
			}
		}
	}
}
