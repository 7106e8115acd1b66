"""The world that federated training happens in: devices, their data, their time.

`devices`, `populations` and `fleet` say who there is, `availability` what they have free, `splits`
who holds which samples, `clock`, `exact` and `transfer` what training and sending take, and
`deadlines` who is in time. Nothing here trains, stores or compares.
"""
