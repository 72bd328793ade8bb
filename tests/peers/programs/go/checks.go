package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// unique gives a name that no earlier run has used.
func unique(word string) string {
	tail := make([]byte, 5)
	_, _ = rand.Read(tail)
	return word + "-" + hex.EncodeToString(tail)
}

// expect compares, and says what was seen.
func expect(what string, got, wanted any) error {
	if !reflect.DeepEqual(got, wanted) {
		return fmt.Errorf("%s: got %v, expected %v", what, got, wanted)
	}
	fmt.Printf("%s: %.90s\n", what, fmt.Sprint(wanted))
	return nil
}

// first gives the first error of a row of checks.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// eventually waits until the condition is true: the cluster does some things in its own time.
func eventually(what string, condition func() (bool, error)) error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		done, err := condition()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if done {
			fmt.Println(what)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within 60 s: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// expectSoon compares again and again: a commit is answered before its marker is in every partition.
func expectSoon[T any](what string, get func() (T, error), wanted T) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := get()
		if err != nil || reflect.DeepEqual(got, wanted) || time.Now().After(deadline) {
			return first(err, expect(what, got, wanted))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// ledger has every number that was acknowledged, and how often each was consumed.
type ledger struct {
	sync.Mutex
	produced map[string]bool
	consumed map[string]int
}

func newLedger() *ledger { return &ledger{produced: map[string]bool{}, consumed: map[string]int{}} }

func (l *ledger) addProduced(number string) { l.Lock(); l.produced[number] = true; l.Unlock() }
func (l *ledger) addConsumed(number string) { l.Lock(); l.consumed[number]++; l.Unlock() }

func (l *ledger) settled() (bool, error) {
	l.Lock()
	defer l.Unlock()
	for number := range l.produced {
		if l.consumed[number] == 0 {
			return false, nil
		}
	}
	return true, nil
}

// check demands everything once, and nothing else.
func (l *ledger) check() error {
	twice, unknown, missing := 0, 0, 0
	for number, times := range l.consumed {
		if times > 1 {
			twice++
		}
		if !l.produced[number] {
			unknown++
		}
	}
	for number := range l.produced {
		if l.consumed[number] == 0 {
			missing++
		}
	}
	fmt.Printf("%d records\n", len(l.produced))
	return expect("records that came twice, that nobody produced, that never came", []int{twice, unknown, missing}, []int{0, 0, 0})
}
