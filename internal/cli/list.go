package cli

import (
	"encoding/json"
	"io"

	"github.com/stoahq/stoa"
)

// listFlags select a part of a list that may be long.
type listFlags struct {
	Limit int    `help:"List at most this many; 0 lists all." default:"100" placeholder:"N"`
	After string `help:"Continue after the one with this id." placeholder:"ID"`
	JSON  bool   `help:"Print JSON."`
}

// rowsAtOnce is how many rows of a long list are read at a time.
const rowsAtOnce = 500

// printList prints the rows that read returns, each time those after an id, and says on
// standard error how to go on if there are more. It holds rowsAtOnce of them in memory. The
// columns of a table are as wide as those rows need.
func printList[ID ~[16]byte, R any](e *Env, f listFlags, read func(after ID, limit int) ([]R, error), idOf func(R) ID, table func(w io.Writer, rows []R, first bool) error) error {
	var after ID
	if f.Limit < 0 {
		return stoa.Errorf(stoa.InvalidRequest, "--limit must be 0, for all, or more.")
	}
	if f.After != "" {
		var err error
		if after, err = stoa.ParseID[ID](f.After); err != nil {
			return stoa.Errorf(stoa.InvalidRequest, "--after must be an id of this list.")
		}
	}
	out := &arrayWriter{w: e.Stdout}
	for printed := 0; ; {
		n := rowsAtOnce
		if f.Limit > 0 {
			n = min(n, f.Limit-printed)
		}
		rows, err := read(after, n+1)
		if err != nil {
			return err
		}
		more := len(rows) > n
		rows = rows[:min(len(rows), n)]
		if f.JSON {
			for _, row := range rows {
				if err := out.write(row); err != nil {
					return err
				}
			}
		} else if err := table(e.Stdout, rows, printed == 0); err != nil {
			return err
		}
		printed += len(rows)
		if more {
			after = idOf(rows[n-1])
		}
		if !more || printed == f.Limit {
			if more {
				Printf(e.Stderr, "stoa: there are more: --after %s continues, --limit 0 lists all\n", stoa.ID[any](after))
			}
			break
		}
	}
	if f.JSON {
		return out.close()
	}
	return nil
}

// arrayWriter writes a JSON array, element by element.
type arrayWriter struct {
	w     io.Writer
	begun bool
}

func (a *arrayWriter) write(element any) error {
	separator := ","
	if !a.begun {
		separator, a.begun = "[", true
	}
	text, err := json.Marshal(element)
	if err != nil {
		return err
	}
	_, err = a.w.Write(append([]byte(separator), text...))
	return err
}

func (a *arrayWriter) close() error {
	end := "]\n"
	if !a.begun {
		end = "[]\n"
	}
	_, err := io.WriteString(a.w, end)
	return err
}
