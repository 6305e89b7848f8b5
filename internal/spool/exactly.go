package spool

// ReleaseExactly is Release under that very name: fs.ErrExist when it is taken.
func (s *Spool) ReleaseExactly(workName, name string) (string, error) {
	there, err := s.move(Work, workName, Inbox, fit(name, ""))
	if !there {
		return "", err
	}
	return fit(name, ""), err
}
