"""Many settings of the rules over one history: spaces, searches, studies, solutions."""
