-- Records as the first versions of the service made them: without revisions, events, keys, crashes.
BEGIN TRANSACTION;
CREATE TABLE artifacts (
	job_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	media_type VARCHAR NOT NULL, 
	PRIMARY KEY (job_id, name), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "artifacts" VALUES('done','x/y','00',1,'text/plain');
CREATE TABLE datasets (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	suffix VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	facts JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "datasets" VALUES(1,'dat_1','a.npz','cd','.npz',4,'{"images": 3}','2026-11-29 01:51:06.264741');
CREATE TABLE device_work (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	device VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	work JSON NOT NULL, 
	result JSON, 
	error VARCHAR, 
	attempts INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	taken_until DATETIME, 
	finished_at DATETIME, 
	PRIMARY KEY (number), 
	UNIQUE (id), 
	FOREIGN KEY(device) REFERENCES devices (name)
);
INSERT INTO "device_work" VALUES(1,'wrk_ada3359f8a814950a9716f84','phone','taken','{"time_budget_s": 1}',NULL,NULL,1,'2026-11-29 01:51:06.278636','2026-11-29 02:01:08.279273',NULL);
CREATE TABLE devices (
	name VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	seen_at DATETIME, 
	PRIMARY KEY (name)
);
INSERT INTO "devices" VALUES('phone','2026-11-29 01:51:06.277533','2026-11-29 01:51:06.279273');
CREATE TABLE jobs (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	kind VARCHAR DEFAULT 'search' NOT NULL, 
	state VARCHAR NOT NULL, 
	spec JSON NOT NULL, 
	progress JSON, 
	error JSON, 
	cancel_requested BOOLEAN NOT NULL, 
	attempts INTEGER NOT NULL, 
	worker_pid INTEGER, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'done','search','succeeded','{"threads": 1}','{"stage": "x"}','null',0,1,NULL,'2026-11-29 01:51:06.265969','2026-11-29 01:51:06.266911','2026-11-29 01:51:06.271574');
INSERT INTO "jobs" VALUES(2,'failed','search','failed','{}',NULL,'{"type": "worker-died", "detail": "..."}',0,1,NULL,'2026-11-29 01:51:06.274012','2026-11-29 01:51:06.274679','2026-11-29 01:51:06.275800');
INSERT INTO "jobs" VALUES(3,'waits','search','queued','{}',NULL,NULL,0,0,NULL,'2026-11-29 01:51:06.276989',NULL,NULL);
CREATE TABLE models (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	suffix VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	architecture VARCHAR, 
	num_classes INTEGER, 
	zoo_input_shape JSON, 
	facts JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "models" VALUES(1,'mdl_1','tiny.onnx','ab','.onnx',3,NULL,NULL,'[1, 8, 8]','{"a": [1]}','2026-11-29 01:51:06.263550');
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX device_work_by_state ON device_work (device, state, number);
COMMIT;
