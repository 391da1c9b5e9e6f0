package backups

import "context"

// StuckRestores returns up to 1,000 restores that keep their store closed until somebody acts:
// the rows of before cannot be put back, which is tried again without end, or there are none to
// put back and not all rows of the archive could be loaded.
func (s *Service) StuckRestores(ctx context.Context) ([]Restore, error) {
	var rows []restoreRow
	err := s.db.Select(ctx, &rows, selectRestore+`(state = 'running' AND step = 'undo' AND attempt >= $1 OR state = 'failed' AND step = 'load')
		AND EXISTS (SELECT 1 FROM store_databases d WHERE d.store_id = backup_restores.store_id AND d.restoring)
		AND NOT EXISTS (SELECT 1 FROM backup_restores n WHERE n.store_id = backup_restores.store_id AND n.id > backup_restores.id
			AND NOT (n.state = 'failed' AND n.step = 'check'))
		ORDER BY id LIMIT 1000`, tries)
	list := make([]Restore, len(rows))
	for i, r := range rows {
		list[i] = r.restore()
	}
	return list, err
}
