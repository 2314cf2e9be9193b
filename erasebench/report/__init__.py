"""The report: a folder of pages about one or several runs that opens in any browser, without a network."""
