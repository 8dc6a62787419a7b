package logs

import (
	"io"
	"net/http"
	"strings"
	"time"
)

var client = &http.Client{Timeout: 20 * time.Second}

// get returns the answer to a GET; status 0 if there is none.
func get(url string) (status int, media, body string) { return answer(client.Get(url)) }

// post returns the answer to a POST; status 0 if there is none.
func post(url, body string) (status int, media, answered string) {
	return answer(client.Post(url, "text/plain", strings.NewReader(body)))
}

func answer(resp *http.Response, err error) (status int, media, body string) {
	if err != nil {
		return 0, "", err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err.Error()
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(data)
}
