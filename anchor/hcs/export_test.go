package hcs

// ParsePage parses the answer of a mirror and returns what it shows.
func ParsePage(body []byte) (messages []Message, next string, err error) {
	p, err := parsePage(body)
	return p.messages, p.next, err
}

// MaxPage is the length in bytes of the longest page that is read.
const MaxPage = maxPage
