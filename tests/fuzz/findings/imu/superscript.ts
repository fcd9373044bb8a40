@dimensions ²
@equalLength true
@seriesLength ²
@classLabel false
@data
1,2,3
