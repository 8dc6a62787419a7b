package hcs

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// pageMessages is how many messages are asked for at once: a mirror's maximum.
	pageMessages = 100
	// maxPage bounds the body of a page: each message is part of a transaction of at
	// most 6,144 bytes, in base64, with some 600 bytes beside it.
	maxPage = 1 << 20
)

// page is a page of a topic as a mirror shows it. Nothing of it is checked but its form.
type page struct {
	messages []Message
	// next is the link to the page after this one; empty at the end.
	next string
}

type pageJSON struct {
	Links *struct {
		Next *string `json:"next"`
	} `json:"links"`
	Messages *[]messageJSON `json:"messages"`
}

// messageJSON leaves out chunk_info: the running hash does not cover it, so a mirror
// could write there what it likes.
type messageJSON struct {
	Time        string `json:"consensus_timestamp"`
	Data        string `json:"message"`
	Payer       string `json:"payer_account_id"`
	RunningHash string `json:"running_hash"`
	HashVersion int    `json:"running_hash_version"`
	Sequence    int64  `json:"sequence_number"`
	Topic       string `json:"topic_id"`
}

// parsePage reads an answer of GET /api/v1/topics/{id}/messages. It refuses what is not
// of the form that mirror nodes write.
func parsePage(body []byte) (page, error) {
	var j pageJSON
	if err := json.Unmarshal(body, &j); err != nil {
		return page{}, err
	}
	if j.Links == nil || j.Messages == nil {
		return page{}, errors.New("no messages or no links")
	}
	if len(*j.Messages) > pageMessages {
		return page{}, fmt.Errorf("%d messages, more than the %d asked for", len(*j.Messages), pageMessages)
	}
	var p page
	if j.Links.Next != nil {
		if p.next = *j.Links.Next; p.next == "" {
			return page{}, errors.New("empty link")
		}
		if len(*j.Messages) == 0 {
			return page{}, errors.New("no messages, and a link to more")
		}
	}
	for i, row := range *j.Messages {
		m, err := row.message()
		if err != nil {
			return page{}, fmt.Errorf("message %d of the page: %w", i+1, err)
		}
		p.messages = append(p.messages, m)
	}
	return p, nil
}

func (j messageJSON) message() (m Message, err error) {
	if j.HashVersion != runningHashVersion {
		return m, fmt.Errorf("running hash version %d, not %d", j.HashVersion, runningHashVersion)
	}
	if m.Topic, err = ParseEntityID(j.Topic); err != nil {
		return m, fmt.Errorf("topic: %w", err)
	}
	if m.Payer, err = ParseEntityID(j.Payer); err != nil {
		return m, fmt.Errorf("payer: %w", err)
	}
	if m.Time, err = parseTime(j.Time); err != nil {
		return m, err
	}
	if m.RunningHash, err = ParseRunningHash(j.RunningHash); err != nil {
		return m, err
	}
	if m.Data, err = decodeBase64(j.Data); err != nil {
		return m, fmt.Errorf("message: %w", err)
	}
	m.Sequence = j.Sequence
	return m, nil
}
