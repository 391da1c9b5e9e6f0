package cli

import (
	"encoding/json"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
)

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa version --help'.
func (versionCmd) Help() string {
	return "The schema versions are those that this program migrates the master database and the stores' databases to."
}

// versionRecord is the output as JSON.
type versionRecord struct {
	stoa.BuildInfo
	MasterSchema int64 `json:"masterSchema"`
	TenantSchema int64 `json:"tenantSchema"`
}

func (cmd versionCmd) Run(e *Env) error {
	if !cmd.JSON {
		Printf(e.Stdout, "stoa %s\n", stoa.Build())
		return nil
	}
	master, err := masterdb.LatestVersion()
	if err != nil {
		return err
	}
	return json.NewEncoder(e.Stdout).Encode(versionRecord{stoa.Info(), master, tenantdb.LatestVersion()})
}
