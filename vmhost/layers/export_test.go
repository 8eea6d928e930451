package layers

// CrashIn has a function called at each point at which a crash leaves something behind.
func (t *Tree) CrashIn(at func(point string)) { t.at = at }
