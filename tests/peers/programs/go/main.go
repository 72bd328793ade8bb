// Runs one program of franz-go: programs PROGRAM HOST:PORT [CLIENT-FOLDER].
//
// With a folder (its client's certificate, as Casemate writes it) the broker is reached over mutual TLS.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var programs = map[string]func(ctx context.Context, broker []kgo.Opt, variant string) error{
	"admin":        admin,
	"records":      records,
	"group":        group,
	"static":       static,
	"transactions": transactions,
	"transform":    transform,
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	program, variant, _ := strings.Cut(os.Args[1], ":")
	broker, err := reach(os.Args[2:])
	if err == nil {
		err = programs[program](ctx, broker, variant)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// reach gives the options that every client of the broker needs.
func reach(where []string) ([]kgo.Opt, error) {
	options := []kgo.Opt{kgo.SeedBrokers(where[0]), kgo.ClientID("programs"), kgo.MetadataMinAge(250 * time.Millisecond)}
	if len(where) == 1 {
		return options, nil
	}
	authority, err := os.ReadFile(filepath.Join(where[1], "ca.pem"))
	if err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(where[1], "client.pem"), filepath.Join(where[1], "client.key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("no certificate in %s/ca.pem", where[1])
	}
	return append(options, kgo.DialTLSConfig(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}})), nil
}

// client makes a client with these options on top of those that reach the broker.
func client(broker []kgo.Opt, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(append([]kgo.Opt{}, broker...), more...)...)
}

// createTopics makes topics of so many partitions.
func createTopics(ctx context.Context, broker []kgo.Opt, partitions int32, topics ...string) error {
	cl, err := client(broker)
	if err != nil {
		return err
	}
	defer cl.Close()
	made, err := kadm.NewClient(cl).CreateTopics(ctx, partitions, 1, nil, topics...)
	if err != nil {
		return err
	}
	return made.Error()
}
