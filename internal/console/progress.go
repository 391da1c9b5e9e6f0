package console

import "github.com/stoahq/stoa/internal/console/ui"

// progressStep is one step of work that goes on in the background.
type progressStep struct {
	Text  string
	Class string
	State ui.State
	// How far a running step is. Nothing is shown without a total.
	Done, Total int64
}

// rows returns the step with the number of rows that are done.
func (s progressStep) rows(done, total int64) progressStep {
	s.Done, s.Total = min(done, total), total
	return s
}

func waitingStep(text string) progressStep {
	return progressStep{Text: text, Class: "pending", State: ui.State{Word: "Waiting", Kind: ui.Info, Icon: "clock"}}
}

func runningStep(text string) progressStep {
	return progressStep{Text: text, Class: "running", State: ui.State{Word: "Running", Kind: ui.Info, Icon: "play"}}
}

func failedStep(text string) progressStep {
	return progressStep{Text: text, Class: "failed", State: ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}}
}

func doneStep(text string) progressStep {
	return progressStep{Text: text, Class: "succeeded", State: ui.State{Word: "Done", Kind: ui.Success, Icon: "check"}}
}
