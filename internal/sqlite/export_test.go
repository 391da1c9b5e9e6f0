package sqlite

import "database/sql"

// Kept returns the texts of the statements that a connection keeps, the most recently used
// first.
func Kept(c *sql.Conn) (texts []string) {
	_ = c.Raw(func(driver any) error { // it returns nil
		for place := driver.(*conn).recent.Front(); place != nil; place = place.Next() {
			texts = append(texts, place.Value.(*statement).text)
		}
		return nil
	})
	return texts
}
