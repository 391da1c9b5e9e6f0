package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/stores"
)

const backupsPath = "/api/stores/{id}/backups"

func (a *api) backupRoutes() {
	tags := []string{"Backups"}
	follow := "202: it is made in the background; follow Location. "
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadBackups), maxBody: noBody},
		huma.Operation{OperationID: "backups.list", Method: http.MethodGet, Path: backupsPath, Tags: tags,
			Summary: "The store's archives", Description: "Newest first.", Errors: []int{401, 403, 404, 422}}, a.listBackups)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.MakeBackup), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "backups.create", Method: http.MethodPost, Path: backupsPath, Tags: tags, DefaultStatus: http.StatusAccepted,
			Summary:     "Archive the store",
			Description: follow + "While one that was asked for is not finished, the answer is that one. A complete archive is checked: loaded into a temporary database and compared row by row.",
			Errors:      []int{401, 403, 404, 409, 422}}, a.makeBackup)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadBackups), maxBody: noBody},
		huma.Operation{OperationID: "backups.get", Method: http.MethodGet, Path: backupsPath + "/{backupId}", Tags: tags,
			Summary: "One archive", Description: "With the rows of each table and the result of its last check.", Errors: []int{401, 403, 404}}, a.getBackup)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageBackups), maxBody: noBody},
		huma.Operation{OperationID: "backups.delete", Method: http.MethodDelete, Path: backupsPath + "/{backupId}", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Delete an archive", Description: "An archive that a restore needs cannot be deleted: 409 backup_in_use.", Errors: []int{401, 403, 404, 409}}, a.deleteBackup)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.MakeBackup), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "backups.check", Method: http.MethodPost, Path: backupsPath + "/{backupId}/check", Tags: tags, DefaultStatus: http.StatusAccepted,
			Summary: "Check an archive", Description: "It is read whole, loaded into a temporary database, and compared row by row. The archive's check has the result.",
			Errors: []int{401, 403, 404}}, a.checkBackup)
	a.restoreRoutes(tags)
	a.scheduleRoutes(tags)
	a.transferRoutes(tags)
}

func (a *api) restoreRoutes(tags []string) {
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.RestoreBackup), maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "backups.restore", Method: http.MethodPost, Path: backupsPath + "/{backupId}/restore", Tags: tags, DefaultStatus: http.StatusAccepted,
			Summary: "Restore an archive into the store",
			Description: "For owners, in person. The archive is read whole, then the store is closed, its present rows are archived, and the archive's rows replace them. " +
				"If the database refuses one of these, the present rows are restored. Follow Location.",
			Errors: []int{400, 401, 403, 404, 409, 413, 422}}, a.restoreBackup)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.DownloadBackup), maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "backups.clone", Method: http.MethodPost, Path: backupsPath + "/{backupId}/clone", Tags: tags, DefaultStatus: http.StatusAccepted,
			Summary: "Make a new store of an archive",
			Description: "For owners, in person. The new store belongs to the caller and has a managed database. It has none of the credits, keys, hostnames and members of this one. " +
				"Follow Location.",
			Errors: []int{400, 401, 403, 404, 409, 413, 422, 429}}, a.cloneBackup)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadBackups), maxBody: noBody},
		huma.Operation{OperationID: "restores.get", Method: http.MethodGet, Path: backupsPath + "/restore", Tags: tags,
			Summary: "The last restore into the store", Description: "Its step, and the archive of the state before it.", Errors: []int{401, 403, 404}}, a.lastRestore)
}

func (a *api) scheduleRoutes(tags []string) {
	const path = "/api/stores/{id}/backup-schedule"
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadBackups), maxBody: noBody},
		huma.Operation{OperationID: "backupSchedule.get", Method: http.MethodGet, Path: path, Tags: tags,
			Summary: "How often the store is archived", Description: "How often an archive is made and how many are kept; `own` says whether the schedule is the store's own.", Errors: []int{401, 403, 404}}, a.getSchedule)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageBackups), maxBody: maxJSON},
		huma.Operation{OperationID: "backupSchedule.set", Method: http.MethodPut, Path: path, Tags: tags,
			Summary: "Set how often the store is archived",
			Description: "Each number says how many archives are kept: the newest one of each of the last hours, days, weeks or months. Archives are made as often as the " +
				"shortest of these needs; with 0 in all of them, never.",
			Errors: []int{400, 401, 403, 404, 412, 413, 422}}, a.setSchedule)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageBackups), maxBody: noBody},
		huma.Operation{OperationID: "backupSchedule.reset", Method: http.MethodDelete, Path: path, Tags: tags,
			Summary: "Archive the store as the platform does by default", Description: "The store has no schedule of its own any more.", Errors: []int{401, 403, 404, 412, 422}}, a.resetSchedule)
}

type backupView struct {
	ID         stoa.BackupID     `json:"id" format:"uuid"`
	StoreID    stoa.StoreID      `json:"storeId" format:"uuid"`
	Origin     backups.Origin    `json:"origin" enum:"request,schedule,restore,upload" doc:"Why there is one: somebody asked for it, it was due, it is what a restore has replaced, or it was uploaded"`
	State      backups.State     `json:"state" enum:"queued,running,succeeded,failed"`
	Bytes      int64             `json:"bytes" doc:"Of the file"`
	Rows       int64             `json:"rows"`
	Progress   *backupProgress   `json:"progress" doc:"null unless it is running"`
	Checksum   *string           `json:"checksum" doc:"Of all rows: equal for equal rows, on every engine; null until it is complete"`
	Source     *backupSource     `json:"source" doc:"What it is an archive of; null until it is complete"`
	Tables     []archive.Summary `json:"tables"`
	Error      *faultView        `json:"error" doc:"Why it failed or, while it is queued, why it is tried again; null if it did not"`
	Check      backupCheckView   `json:"check"`
	CreatedAt  time.Time         `json:"createdAt"`
	SnapshotAt *time.Time        `json:"snapshotAt" doc:"The rows are those of this time; null until it is complete"`
	FinishedAt *time.Time        `json:"finishedAt"`
	KeepUntil  *time.Time        `json:"keepUntil" doc:"When it is deleted; null: by the schedule, or by its owner only"`
}

type backupProgress struct {
	TablesDone  int   `json:"tablesDone" doc:"Tables that are archived"`
	TablesTotal int   `json:"tablesTotal" doc:"0: not known yet"`
	RowsDone    int64 `json:"rowsDone" doc:"Rows that are archived"`
}

type backupSource struct {
	StoreID       stoa.StoreID `json:"storeId" format:"uuid" doc:"Another one than storeId for an uploaded archive of another store: it can be cloned, not restored"`
	Engine        string       `json:"engine"`
	EngineVersion string       `json:"engineVersion"`
	SchemaVersion int64        `json:"schemaVersion"`
	Release       string       `json:"release" doc:"Of Stoa"`
	NotIncluded   []string     `json:"notIncluded" doc:"Tables, and columns as table.column, that Stoa did not create: their content is not in the archive"`
	Omitted       int          `json:"omitted" doc:"The number of further such names"`
}

type backupCheckView struct {
	State    backups.CheckState `json:"state" enum:"none,queued,passed,failed"`
	Restored bool               `json:"restored" doc:"It was loaded into a database, and all rows are equal"`
	Message  *string            `json:"message" doc:"Why it failed; null if it did not"`
	TookMS   *int64             `json:"tookMs" doc:"How long it took, in milliseconds; null before the first check"`
	At       *time.Time         `json:"at" doc:"When it was; null before the first check"`
}

func newBackupView(b backups.Backup) backupView {
	v := backupView{
		ID: b.ID, StoreID: b.StoreID, Origin: b.Origin, State: b.State, Bytes: b.Bytes, Rows: b.RowCount, Tables: append([]archive.Summary{}, b.Manifest.Tables...),
		Check:     backupCheckView{State: b.CheckState, Restored: b.CheckRestored, Message: b.CheckMessage, TookMS: b.CheckMS, At: b.CheckedAt},
		Error:     newFaultView(b.Fault),
		CreatedAt: b.CreatedAt, SnapshotAt: b.SnapshotAt, FinishedAt: b.FinishedAt, KeepUntil: b.KeepUntil,
	}
	if b.State == backups.Running {
		v.Progress = &backupProgress{b.Done.Tables, b.Done.OfTables, b.Done.Rows}
	}
	if m := b.Manifest; m.Checksum != "" {
		v.Checksum = &m.Checksum
		v.Source = &backupSource{
			StoreID: m.StoreID, Engine: m.Engine, EngineVersion: m.EngineVersion, SchemaVersion: m.SchemaVersion, Release: m.Release,
			NotIncluded: append([]string{}, m.NotIncluded...), Omitted: m.Omitted,
		}
	}
	return v
}

type restoreView struct {
	ID         stoa.RestoreID `json:"id" format:"uuid"`
	StoreID    stoa.StoreID   `json:"storeId" format:"uuid" doc:"The store that gets the rows"`
	BackupID   stoa.BackupID  `json:"backupId" format:"uuid"`
	SourceID   stoa.StoreID   `json:"sourceId" format:"uuid" doc:"The store whose archive it is: another one for a clone"`
	State      backups.State  `json:"state" enum:"queued,running,succeeded,failed"`
	Step       string         `json:"step" enum:"database,check,close,drain,save,load,undo,open"`
	RowsDone   int64          `json:"rowsDone" doc:"Rows that the step check, load or undo has read or loaded"`
	RowsTotal  int64          `json:"rowsTotal" doc:"Rows that it has to; 0: the step has none, or has not begun"`
	Error      *faultView     `json:"error"`
	SavedID    *stoa.BackupID `json:"savedId" format:"uuid" doc:"The archive of what was there before; null: there is none, or not yet"`
	CreatedAt  time.Time      `json:"createdAt"`
	FinishedAt *time.Time     `json:"finishedAt"`
}

func newRestoreView(r backups.Restore) restoreView {
	return restoreView{
		ID: r.ID, StoreID: r.StoreID, BackupID: r.BackupID, SourceID: r.SourceID, State: r.State, Step: r.Step, RowsDone: r.RowsDone, RowsTotal: r.RowsTotal, SavedID: r.SavedID,
		Error: newFaultView(r.Fault), CreatedAt: r.CreatedAt, FinishedAt: r.FinishedAt,
	}
}

// BackupPath names an archive of a store in a path. It is exported because huma reads only
// exported embedded structs.
type BackupPath struct {
	StorePath
	BackupID string `path:"backupId" doc:"The archive's id, a UUID"`
}

// ids parses the path. An id that is none is that of no archive.
func (p BackupPath) ids() (stoa.StoreID, stoa.BackupID, error) {
	store, err := storeID(p.ID)
	if err != nil {
		return store, stoa.BackupID{}, err
	}
	id, _ := stoa.ParseID[stoa.BackupID](p.BackupID)
	return store, id, nil
}

type backupOutput struct {
	Location string `header:"Location"`
	Body     backupView
}

type oneBackupOutput struct{ Body backupView }

func (a *api) backupOutput(b backups.Backup) *backupOutput {
	return &backupOutput{"/api/stores/" + b.StoreID.String() + "/backups/" + b.ID.String(), newBackupView(b)}
}

type backupsInput struct {
	StorePath
	PageInput
}

type backupPage struct {
	Data       []backupView `json:"data"`
	NextCursor *string      `json:"nextCursor"`
}

type backupsOutput struct{ Body backupPage }

func (a *api) listBackups(ctx context.Context, in *backupsInput) (*backupsOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	page, err := a.Backups.List(ctx, principal(ctx), id, in.Limit, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &backupsOutput{backupPage{Data: make([]backupView, len(page.Backups)), NextCursor: page.NextCursor}}
	for i, b := range page.Backups {
		out.Body.Data[i] = newBackupView(b)
	}
	return out, nil
}

func (a *api) makeBackup(ctx context.Context, in *StorePath) (*backupOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	b, err := a.Backups.Make(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return a.backupOutput(b), nil
}

func (a *api) getBackup(ctx context.Context, in *BackupPath) (*oneBackupOutput, error) {
	store, id, err := in.ids()
	if err != nil {
		return nil, err
	}
	b, err := a.Backups.Get(ctx, principal(ctx), store, id)
	if err != nil {
		return nil, err
	}
	return &oneBackupOutput{newBackupView(b)}, nil
}

func (a *api) deleteBackup(ctx context.Context, in *BackupPath) (*struct{}, error) {
	store, id, err := in.ids()
	if err != nil {
		return nil, err
	}
	return nil, a.Backups.Delete(ctx, principal(ctx), store, id)
}

func (a *api) checkBackup(ctx context.Context, in *BackupPath) (*backupOutput, error) {
	store, id, err := in.ids()
	if err != nil {
		return nil, err
	}
	b, err := a.Backups.Check(ctx, principal(ctx), store, id)
	if err != nil {
		return nil, err
	}
	return a.backupOutput(b), nil
}

type restoreInput struct {
	BackupPath
	Body *restoreBody
}

type restoreBody struct {
	Unsaved bool `json:"unsaved,omitempty" doc:"Replace the present rows without archiving them, because they cannot be: they are lost"`
}

type restoreOutput struct {
	Location string `header:"Location"`
	Body     restoreView
}

func restoreLocation(store stoa.StoreID) string {
	return "/api/stores/" + store.String() + "/backups/restore"
}

func (a *api) restoreBackup(ctx context.Context, in *restoreInput) (*restoreOutput, error) {
	store, id, err := in.ids()
	if err != nil {
		return nil, err
	}
	var o backups.RestoreOptions
	if in.Body != nil {
		o.Unsaved = in.Body.Unsaved
	}
	r, err := a.Backups.Restore(ctx, principal(ctx), store, id, o)
	if err != nil {
		return nil, err
	}
	return &restoreOutput{restoreLocation(store), newRestoreView(r)}, nil
}

func (a *api) lastRestore(ctx context.Context, in *StorePath) (*lastRestoreOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	r, err := a.Backups.LastRestore(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return &lastRestoreOutput{newRestoreView(r)}, nil
}

type lastRestoreOutput struct{ Body restoreView }

type cloneInput struct {
	BackupPath
	Body cloneBody
}

type cloneBody struct {
	Name    string   `json:"name" minLength:"1" maxLength:"120"`
	Slug    string   `json:"slug,omitempty" maxLength:"63" doc:"Unless told, one is derived from the name"`
	Without []string `json:"without,omitempty" maxItems:"2" enum:"customers,orders" doc:"What is left out. Without customers there are no orders either"`
}

type cloneOutput struct {
	Location string `header:"Location"`
	Body     cloneView
}

type cloneView struct {
	StoreID stoa.StoreID `json:"storeId" format:"uuid" doc:"The new store"`
	Slug    string       `json:"slug"`
	Restore restoreView  `json:"restore"`
}

func (a *api) cloneBackup(ctx context.Context, in *cloneInput) (*cloneOutput, error) {
	store, id, err := in.ids()
	if err != nil {
		return nil, err
	}
	created, r, err := a.Backups.Clone(ctx, principal(ctx), store, id, backups.Clone{
		New: stores.NewStore{Name: in.Body.Name, Slug: in.Body.Slug, IdempotencyKey: idempotencyKey(ctx)}, Without: in.Body.Without,
	})
	if err != nil {
		return nil, err
	}
	return &cloneOutput{restoreLocation(created.ID), cloneView{StoreID: created.ID, Slug: created.Slug, Restore: newRestoreView(r)}}, nil
}

type scheduleBody struct {
	Hourly  int `json:"hourly" minimum:"0" maximum:"1000" doc:"How many hourly archives are kept"`
	Daily   int `json:"daily" minimum:"0" maximum:"1000" doc:"How many daily archives are kept"`
	Weekly  int `json:"weekly" minimum:"0" maximum:"1000" doc:"How many weekly archives are kept"`
	Monthly int `json:"monthly" minimum:"0" maximum:"1000" doc:"How many monthly archives are kept"`
}

type scheduleView struct {
	Hourly  int        `json:"hourly"`
	Daily   int        `json:"daily"`
	Weekly  int        `json:"weekly"`
	Monthly int        `json:"monthly"`
	Own     bool       `json:"own" doc:"The store's own, as opposed to that of the platform"`
	NextAt  *time.Time `json:"nextAt" doc:"When the next archive is due; null: not yet planned, or never"`
}

type scheduleOutput struct {
	ETag string `header:"ETag"`
	Body scheduleView
}

func newScheduleOutput(s backups.StoreSchedule, err error) (*scheduleOutput, error) {
	if err != nil {
		return nil, err
	}
	return &scheduleOutput{quote(s.Version()), scheduleView{Hourly: s.Hourly, Daily: s.Daily, Weekly: s.Weekly, Monthly: s.Monthly, Own: s.Own, NextAt: s.NextAt}}, nil
}

func (a *api) getSchedule(ctx context.Context, in *StorePath) (*scheduleOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return newScheduleOutput(a.Backups.Schedule(ctx, principal(ctx), id))
}

type scheduleInput struct {
	StorePath
	MatchInput
	Body scheduleBody
}

func (a *api) setSchedule(ctx context.Context, in *scheduleInput) (*scheduleOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	own := backups.Schedule{Hourly: in.Body.Hourly, Daily: in.Body.Daily, Weekly: in.Body.Weekly, Monthly: in.Body.Monthly}
	return newScheduleOutput(a.Backups.SetSchedule(ctx, principal(ctx), id, &own, match))
}

type resetScheduleInput struct {
	StorePath
	MatchInput
}

func (a *api) resetSchedule(ctx context.Context, in *resetScheduleInput) (*scheduleOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	return newScheduleOutput(a.Backups.SetSchedule(ctx, principal(ctx), id, nil, match))
}

// attachment returns the header of a file of that name, which consists of letters, digits
// and the characters . and -.
func attachment(name string) string { return "attachment; filename=" + strconv.Quote(name) }
