STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: test check race interop hcs bench demo

test:
	go test ./...

check:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go mod tidy -diff
	go mod verify
	go vet ./...
	$(STATICCHECK) ./...

race:
	go test -race ./...

interop:
	cd bench/peers && test -z "$$(gofmt -l .)" && go vet ./... && go test -timeout 30m ./...
	cd bench/stores && test -z "$$(gofmt -l .)" && go vet ./... && go test ./...

hcs:
	cd anchor/hcs/publish && test -z "$$(gofmt -l .)" && go vet ./... && go test ./...

bench:
	go test -run '^$$' -bench . -benchtime 1x ./...
	cd bench/stores && go test -run - -bench . -benchtime 1x -timeout 30m ./...

demo:
	go run ./cmd/ipfs-savepoint demo
