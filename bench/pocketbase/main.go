// Command pocketbase is the server that the measurement pocketbase compares the platform
// with: the one that its authors release, without changes. It has a module of its own, so that
// nothing else is built with what it needs.
package main

import (
	"log"

	"github.com/pocketbase/pocketbase"
)

func main() {
	if err := pocketbase.New().Start(); err != nil {
		log.Fatal(err)
	}
}
