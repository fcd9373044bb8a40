@timeStamps  
@ 
@dimensions 6
@equalLength true
@seriesLength 53
@classLabel false
