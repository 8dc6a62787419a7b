package dag

import (
	"encoding/json"
	"os"
	"testing"
)

// collidingNames returns two usable names with equal murmur3-x64-128. Such names
// are cheap to make: a round of the hash can be run backwards, so that for any
// first block of 16 bytes there is a second one that leads to a given state.
func collidingNames(t testing.TB) (string, string) {
	t.Helper()
	data, err := os.ReadFile("../testdata/colliding-names.json")
	if err != nil {
		t.Fatal(err)
	}
	var names [2]string
	if err := json.Unmarshal(data, &names); err != nil {
		t.Fatal(err)
	}
	if names[0] == names[1] || nameHash(names[0]) != nameHash(names[1]) || CheckName(names[0]) != nil || CheckName(names[1]) != nil {
		t.Fatalf("%q are not two usable names that collide", names)
	}
	return names[0], names[1]
}
