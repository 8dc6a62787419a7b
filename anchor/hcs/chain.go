package hcs

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// RunningHash is the running hash of a topic after a message; zero before the first.
type RunningHash [sha512.Size384]byte

// String returns the hash in base64, as mirror nodes write it.
func (h RunningHash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// ParseRunningHash reads what String writes.
func ParseRunningHash(s string) (RunningHash, error) {
	b, err := decodeBase64(s)
	if err != nil || len(b) != sha512.Size384 {
		return RunningHash{}, fmt.Errorf("running hash %q is not the base64 of %d bytes", s, sha512.Size384)
	}
	return RunningHash(b), nil
}

// decodeBase64 reads base64 in its one form: the package of the standard library
// skips line breaks.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err == nil && base64.StdEncoding.EncodeToString(b) != s {
		err = fmt.Errorf("base64 with line breaks")
	}
	return b, err
}

// Position is a place in a topic: the running hash vouches for all messages up to it.
type Position struct {
	// Sequence counts the messages of the topic, from 1; 0 is before the first.
	Sequence    int64
	RunningHash RunningHash
}

// Message is one message of a topic, as the running hash covers it.
type Message struct {
	Topic EntityID
	// Payer is the account that paid for the message.
	Payer EntityID
	Position
	// Time is the consensus time, in UTC.
	Time time.Time
	// Data is one chunk, exactly as submitted.
	Data []byte
}

// runningHashVersion is the only one that is known here.
const runningHashVersion = 3

// Parts of Java's Object Serialization Stream Protocol, section 6.4.2. The ledger's nodes
// hash a stream that holds two arrays of bytes with the numbers between them.
var (
	// STREAM_MAGIC, STREAM_VERSION
	javaStream = []byte{0xAC, 0xED, 0x00, 0x05}
	// TC_ARRAY, TC_CLASSDESC, "[B", serialVersionUID, SC_SERIALIZABLE, no fields,
	// TC_ENDBLOCKDATA, TC_NULL
	javaBytes = []byte{0x75, 0x72, 0x00, 0x02, '[', 'B', 0xAC, 0xF3, 0x17, 0xF8, 0x06, 0x08, 0x54, 0xE0,
		0x02, 0x00, 0x00, 0x78, 0x70}
	// TC_ARRAY, TC_REFERENCE to that class
	javaBytesAgain = []byte{0x75, 0x71, 0x00, 0x7E, 0x00, 0x00}
	// TC_BLOCKDATA of 76 bytes
	javaNumbers = []byte{0x77, 8*8 + 4 + 8}
)

// Hash returns the running hash (version 3) of the topic after m, if it was previous
// before. It reads all fields but RunningHash.
func (m Message) Hash(previous RunningHash) RunningHash {
	order := binary.BigEndian
	data := sha512.Sum384(m.Data)
	b := append([]byte{}, javaStream...)
	b = append(b, javaBytes...)
	b = order.AppendUint32(b, sha512.Size384)
	b = append(b, previous[:]...)
	b = append(b, javaNumbers...)
	for _, n := range []int64{
		runningHashVersion,
		m.Payer.Shard, m.Payer.Realm, m.Payer.Num,
		m.Topic.Shard, m.Topic.Realm, m.Topic.Num,
		m.Time.Unix(),
	} {
		b = order.AppendUint64(b, uint64(n))
	}
	b = order.AppendUint32(b, uint32(m.Time.Nanosecond()))
	b = order.AppendUint64(b, uint64(m.Sequence))
	b = append(b, javaBytesAgain...)
	b = order.AppendUint32(b, sha512.Size384)
	b = append(b, data[:]...)
	return sha512.Sum384(b)
}

// follows reports whether m is a message of topic that comes next after previous.
func (m Message) follows(topic EntityID, previous Position) error {
	switch {
	case m.Topic != topic:
		return fmt.Errorf("it is of topic %v, not %v", m.Topic, topic)
	case m.Sequence != previous.Sequence+1:
		return fmt.Errorf("message %d stands in its place", m.Sequence)
	}
	if want := m.Hash(previous.RunningHash); want != m.RunningHash {
		return fmt.Errorf("running hash is %v, computed %v", m.RunningHash, want)
	}
	return nil
}
