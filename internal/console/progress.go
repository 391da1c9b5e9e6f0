package console

import "github.com/stoahq/stoa/internal/console/ui"

// progressStep is one step of work that goes on in the background.
type progressStep struct {
	Text  string
	Class string
	State ui.State
}

func waitingStep(text string) progressStep {
	return progressStep{text, "pending", ui.State{Word: "Waiting", Kind: ui.Info, Icon: "clock"}}
}

func runningStep(text string) progressStep {
	return progressStep{text, "running", ui.State{Word: "Running", Kind: ui.Info, Icon: "play"}}
}

func failedStep(text string) progressStep {
	return progressStep{text, "failed", ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}}
}

func doneStep(text string) progressStep {
	return progressStep{text, "succeeded", ui.State{Word: "Done", Kind: ui.Success, Icon: "check"}}
}
