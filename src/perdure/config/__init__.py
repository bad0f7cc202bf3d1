"""The configuration: what may stand in perdure.toml and in the environment, and what it means.

Text goes in, values come out; nothing here opens a file or looks at the environment. `declaration` says
which keys there are, `values` what their texts mean, `reading` reads a file, `environment` the variables,
`effective` puts both together, `example` and `table` write about all keys.
"""
